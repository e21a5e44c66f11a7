// The console's one script: fetches the overview every two seconds and draws it. Everything that came from outside goes
// into the page as text, never as markup. A failed fetch keeps the last picture and says that it is old.
'use strict';

const PERIOD_MS = 2000;
const HORIZON_ORDER = (a, b) => spanMs(a) - spanMs(b);
const byId = (id) => document.getElementById(id);

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== '') node.append(child);
  }
  return node;
}

function spanMs(text) {
  const units = { ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5, y: 31536e6 };
  let total = 0;
  for (const [, number, unit] of text.matchAll(/(\d+)(ms|[smhdwy])/g)) total += number * units[unit];
  return total;
}

function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} d`;
}

function ago(ms, now) {
  return ms ? `${span(Math.max(0, (now - ms) / 1000))} ago` : '';
}

function percent(ratio) {
  return ratio === null || ratio === undefined ? '–' : `${Math.round(ratio * 100)} %`;
}

function tag(word, kind = word) {
  return element('span', `tag ${kind}`, word);
}

function fill(id, nodes, whenEmpty) {
  const parent = byId(id);
  parent.replaceChildren(...(nodes.length ? nodes : [element(parent.tagName === 'OL' ? 'li' : 'p', 'empty', whenEmpty)]));
}

function drawSummary(view) {
  const firing = view.alerts.filter((alert) => alert.state === 'firing');
  const silent = view.hosts.filter((host) => host.verdict !== 'healthy').length;
  const soon = view.outlooks.filter((row) => row.probabilities.some(([h, p]) => spanMs(h) <= 864e5 && p > 0.5)).length;
  const part = (number, text) => [element('b', '', String(number)), ` ${text}`];
  byId('summary').replaceChildren(
    ...part(view.hosts.length, view.hosts.length === 1 ? 'host' : 'hosts'),
    ...(silent ? [', ', ...part(silent, 'not healthy')] : []),
    ' · ', ...part(firing.length, firing.length === 1 ? 'alert firing' : 'alerts firing'),
    ' · ', ...part(soon, 'likely to run out within a day'),
  );
  const worst = ['emergency', 'critical', 'warning'].find((level) => firing.some((alert) => alert.level === level));
  document.title = worst ? `(${firing.length}) Petrel` : 'Petrel';
  byId('version').textContent = `Petrel ${view.version}`;
  const hold = byId('hold');
  hold.hidden = false;
  hold.classList.toggle('on', view.hold.on);
  hold.textContent = view.hold.on ? 'All actions held – release' : 'Hold all actions';
  hold.onclick = () => act('/petrel/v1/hold', { on: !view.hold.on });
  const notice = byId('notice');
  notice.hidden = view.problems.length === 0;
  notice.textContent = view.problems.join(' · ');
}

function alertNode(alert, now) {
  const odds = alert.prediction
    ? `${percent(alert.prediction.probability)} likely${alert.prediction.lead_seconds === null || alert.prediction.lead_seconds === undefined ? '' : `, about ${span(alert.prediction.lead_seconds)} left`}`
    : '';
  return element('li', alert.state === 'firing' ? alert.level : '',
    element('div', 'row', tag(alert.level), alert.state === 'firing' ? '' : tag(alert.state, 'quiet'),
      element('span', 'title', alert.labels.alertname),
      element('span', 'dim', alert.labels.instance ?? ''),
      element('span', 'when', ago(alert.resolved_at ?? alert.fired_at ?? alert.active_at, now))),
    element('div', '', alert.annotations.summary ?? alert.annotations.description ?? ''),
    odds ? element('div', 'dim odds', odds) : '');
}

function drawAlerts(view) {
  const levels = ['emergency', 'critical', 'warning', 'info'];
  const states = ['firing', 'pending', 'resolved'];
  const sorted = [...view.alerts].sort((a, b) =>
    states.indexOf(a.state) - states.indexOf(b.state) || levels.indexOf(a.level) - levels.indexOf(b.level) || b.active_at - a.active_at);
  const counts = levels.map((level) => [level, sorted.filter((a) => a.level === level && a.state === 'firing').length]);
  byId('alerts-count').textContent = counts.filter(([, n]) => n).map(([level, n]) => `${n} ${level}`).join(', ');
  fill('alerts', sorted.slice(0, 50).map((alert) => alertNode(alert, view.now)), 'Nothing fires.');
}

function runNode(run, now) {
  const steps = (run.steps ?? []).map((step) =>
    element('li', '', tag(step.state, step.state), element('span', '', `${step.action}${step.agent ? ` on ${step.agent}` : ''}`),
      element('span', 'dim', step.detail ?? '')));
  const button = (label, verb, kind) => {
    const node = element('button', kind, label);
    node.type = 'button';
    node.onclick = () => act(`/petrel/v1/runs/${run.id}/${verb}`, { reason: 'from the console' }, node);
    return node;
  };
  const waiting = run.state === 'waiting';
  const going = ['running', 'undoing', 'planned'].includes(run.state);
  return element('li', '',
    element('div', 'row', tag(run.state, run.state), element('span', 'title', `#${run.id} ${run.runbook}`),
      element('span', 'dim', run.subject ?? ''), tag(run.mode, 'quiet'), element('span', 'when', ago(run.changed_at ?? run.created_at, now))),
    run.reason ? element('div', 'dim', run.reason) : '',
    steps.length ? element('ol', 'steps', steps) : '',
    waiting || going ? element('div', 'actions',
      waiting ? [button('Approve', 'approve', 'yes'), button('Deny', 'deny', '')] : button('Abort', 'abort', '')) : '');
}

function drawRuns(view) {
  const waiting = view.runs.filter((run) => run.state === 'waiting').length;
  byId('runs-count').textContent = waiting ? `${waiting} waiting for a yes or no` : '';
  fill('runs', view.runs.slice(0, 20).map((run) => runNode(run, view.now)), 'Nothing has been done, and nothing waits for approval.');
}

function chance(probability) {
  const cell = element('span', 'chance', probability === undefined || probability === null ? '–' : percent(probability));
  if (probability > 0.5) cell.style.background = `color-mix(in srgb, var(--critical) ${Math.round(probability * 55)}%, var(--track))`;
  else if (probability > 0.1) cell.style.background = `color-mix(in srgb, var(--warning) ${Math.round(probability * 90)}%, var(--track))`;
  return cell;
}

function drawOutlooks(view) {
  const horizons = [...new Set(view.outlooks.flatMap((row) => row.probabilities.map(([h]) => h)))].sort(HORIZON_ORDER);
  byId('outlooks-head').replaceChildren(...['Host', 'Resource', '', 'Left (median)', ...horizons.map((h) => `within ${h}`), '']
    .map((text) => element('th', '', text)));
  const rows = view.outlooks.slice(0, 30).map((row) => element('tr', '',
    element('td', 'title', row.instance), element('td', '', row.resource), element('td', '', row.what ?? ''),
    element('td', '', row.seconds_to_limit[1] === null ? '–' : span(row.seconds_to_limit[1])),
    ...horizons.map((h) => element('td', 'odds', chance(row.probabilities.find(([known]) => known === h)?.[1]))),
    element('td', 'dim', row.refused ?? '')));
  byId('outlooks').replaceChildren(...rows);
  if (!rows.length) {
    const cell = element('td', 'empty', 'No outlook yet: a forecast needs a little history first.');
    cell.colSpan = 5 + horizons.length;
    byId('outlooks').append(element('tr', '', cell));
  }
}

function meter(name, ratio, title) {
  const bar = element('i', ratio > 0.95 ? 'full' : ratio > 0.85 ? 'high' : '');
  bar.style.width = `${Math.min(100, Math.max(0, (ratio ?? 0) * 100))}%`;
  const node = element('div', 'meter', element('span', 'dim', name), element('span', 'bar', bar), element('span', '', percent(ratio)));
  if (title) node.title = title;
  return node;
}

function drawHosts(view) {
  byId('hosts-count').textContent = view.hosts.length > 0 ? String(view.hosts.length) : '';
  fill('hosts', view.hosts.map((host) => element('li', '',
    element('div', 'row', element('span', 'title', host.name), tag(host.verdict), host.duty && host.duty !== 'active' ? tag(host.duty, 'quiet') : ''),
    host.verdict !== 'healthy' && host.reason ? element('div', 'dim', host.reason) : '',
    meter('CPU', host.cpu_ratio), meter('Memory', host.memory_ratio), meter('Disk', host.filesystem_ratio_max, host.filesystem_fullest),
    meter('Anomalies', host.anomaly_rate, 'share of this host\u2019s series that behave unlike themselves'))), 'No host has reported yet.');
}

function drawLedger(view) {
  const ledger = view.ledger;
  const rows = ledger.calibration.filter((bucket) => bucket.count > 0).map((bucket) =>
    meter(`said ${percent(bucket.predicted)}`, bucket.realised, `${bucket.count} settled predictions`));
  const text = ledger.settled
    ? `${ledger.settled} settled, ${ledger.open} open. Of predictions that said so much, this share came true:`
    : `${ledger.open} predictions are open; none has come due yet.`;
  byId('ledger').replaceChildren(element('p', 'dim', text), ...rows);
}

function headers() {
  const token = sessionStorage.getItem('petrel-token');
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function askForToken() {
  const dialog = byId('token-dialog');
  if (dialog.open) return;
  dialog.onclose = () => { sessionStorage.setItem('petrel-token', byId('token').value); byId('token').value = ''; refresh(); };
  dialog.showModal();
}

async function act(path, body, button) {
  if (button) button.disabled = true;
  const answer = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json', ...headers() }, body: JSON.stringify({ by: 'console', ...body }) })
    .catch((error) => ({ ok: false, json: async () => ({ error: String(error) }) }));
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    byId('notice').hidden = false;
    byId('notice').textContent = told.error ?? 'The server refused.';
    return;
  }
  await refresh();
}

async function refresh() {
  try {
    const answer = await fetch('/petrel/v1/overview', { headers: headers() });
    if (answer.status === 401) { askForToken(); return; }
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const view = await answer.json();
    drawSummary(view); drawAlerts(view); drawRuns(view); drawOutlooks(view); drawHosts(view); drawLedger(view);
  } catch (error) {
    byId('notice').hidden = false;
    byId('notice').textContent = `This page is old: ${error.message}. Trying again.`;
  }
}

async function live() {
  await refresh();
  setTimeout(live, PERIOD_MS);
}

live();
