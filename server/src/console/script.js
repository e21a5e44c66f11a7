// The console's one script: fetches the overview every two seconds and draws it. Everything that came from outside goes
// into the page as text, never as markup. A part is drawn anew only when it changed, so that no button moves away under a
// finger. A failed fetch keeps the last picture, greys it and says that it is old.
'use strict';

const PERIOD_MS = 2000;
const ALERTS_MAX = 50;
/** Alerts that do not fire must not push everything else off the screen. */
const QUIET_ALERTS_MAX = 4;
const RUNS_MAX = 20;
const OUTLOOKS_MAX = 200;
const HOSTS_MAX = 120;
const LEVELS = ['emergency', 'critical', 'warning', 'info'];
/** Outlooks whose highest probability is below this are folded away. */
const NEGLIGIBLE = 0.05;
const byId = (id) => document.getElementById(id);

/** What each part showed last, to draw only what changed. */
const drawn = {};
/** Difference between the server's clock and this one, so that ages are right on a machine whose clock is not. */
let clockAheadMs = 0;
let fetchedAt = 0;
let allOutlooks = false;

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

/** A moment, told as an age (`ago`) or as what is left (`left`); `tellTimes` keeps it true. */
function moment(ms, kind = 'ago') {
  if (!ms) return '';
  const node = element('time', 'when');
  node.dataset.at = ms;
  node.dataset.kind = kind;
  node.dateTime = new Date(ms).toISOString();
  node.title = new Date(ms).toLocaleString();
  return node;
}

function tellTimes() {
  const now = Date.now() + clockAheadMs;
  for (const node of document.querySelectorAll('time[data-at]')) {
    const seconds = (now - Number(node.dataset.at)) / 1000;
    node.textContent = node.dataset.kind === 'left' ? `${span(Math.max(0, -seconds))} left to decide` : `${span(Math.max(0, seconds))} ago`;
  }
}

const percent = (ratio) => (ratio === null || ratio === undefined ? '–' : `${Math.round(ratio * 100)} %`);
const subject = (run) => (run.subject ?? '').replace(/^host:/, '');
const tag = (word, kind = word) => element('span', `tag ${kind}`, word);
const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;

function fill(id, nodes, whenEmpty) {
  byId(id).replaceChildren(...(nodes.length ? nodes : [element('li', 'empty', whenEmpty)]));
}

const isFiring = (alert) => alert.state === 'firing';
const isIll = (host) => host.verdict !== 'healthy';
/** A fifth of a host's series at once is worth a look; a few always are strange. */
const isStrange = (host) => (host.anomaly_rate ?? 0) >= 0.2;
/** How likely at the longest horizon, the most a row can say. */
const odds = (row) => Math.max(0, ...row.probabilities.map(([, probability]) => probability));

function counted(alerts) {
  return LEVELS.map((level) => [level, alerts.filter((alert) => alert.level === level).length]).filter(([, count]) => count);
}

/** Most urgent first: the smallest median time left, then the likeliest. */
function bySoonest(a, b) {
  return (a.seconds_to_limit[1] ?? Infinity) - (b.seconds_to_limit[1] ?? Infinity) || odds(b) - odds(a)
    || a.instance.localeCompare(b.instance) || a.what.localeCompare(b.what) || 0;
}

function tile(target, kind, big, small) {
  const node = element('a', `tile ${kind}`, element('b', '', big), element('span', '', small));
  node.href = `#${target}`;
  return node;
}

function drawTiles(view) {
  const firing = counted(view.alerts.filter(isFiring));
  const waiting = view.runs.filter((run) => run.state === 'waiting');
  const going = view.runs.filter((run) => ['planned', 'running', 'undoing'].includes(run.state));
  const ill = view.hosts.filter(isIll);
  const limited = view.outlooks.filter((row) => Number.isFinite(row.seconds_to_limit[1])).sort(bySoonest);
  // What is at its limit already is an alert's matter; here stands what there is still time for.
  const first = limited.find((row) => row.seconds_to_limit[1] >= 1) ?? limited[0];
  const soon = first && first.seconds_to_limit[1] <= 86400;
  byId('tiles').replaceChildren(
    firing.length
      ? tile('alerts-section', firing[0][0], firing.map(([level, count]) => `${count} ${level}`).join(', '), 'firing now')
      : tile('alerts-section', 'calm', 'Nothing fires', view.alerts.some((alert) => alert.state === 'pending') ? 'some alerts are pending' : ''),
    waiting.length
      ? tile('runs-section', 'warning', plural(waiting.length, 'run waits', 'runs wait'), 'for your yes or no')
      : tile('runs-section', 'calm', 'Nothing waits for you', going.length ? `${plural(going.length, 'run is', 'runs are')} at work` : ''),
    first
      ? tile('outlooks-section', soon ? 'warning' : 'calm', first.seconds_to_limit[1] < 1 ? 'At its limit' : `${span(first.seconds_to_limit[1])} left`,
        `${first.instance} ${first.what}${first.seconds_to_limit[1] < 1 ? '' : ' runs out next'}`)
      // Absence of an outlook means «not said», never «safe».
      : view.outlooks.some((row) => row.probabilities.length)
        ? tile('outlooks-section', 'calm', 'Nothing runs out', 'as far as can be forecast')
        : tile('outlooks-section', 'calm', 'No outlook yet', 'a forecast needs a few minutes of samples'),
    ill.length
      ? tile('hosts-section', ill.some((host) => host.verdict === 'dead') ? 'critical' : 'warning', `${ill.length} of ${plural(view.hosts.length, 'host', 'hosts')} ill`,
        ill.slice(0, 3).map((host) => `${host.name} ${host.verdict}`).join(', ') + (ill.length > 3 ? ', …' : ''))
      : tile('hosts-section', 'calm', plural(view.hosts.length, 'host', 'hosts'), view.hosts.length ? 'all healthy' : 'none has reported yet'));
  const worst = firing[0];
  document.title = worst && worst[0] !== 'info' ? `(${worst[1]} ${worst[0]}) Petrel` : waiting.length ? '(waiting) Petrel' : 'Petrel';
}

function drawHead(view) {
  byId('version').textContent = `Petrel ${view.version}`;
  const hold = byId('hold');
  hold.hidden = false;
  hold.classList.toggle('on', view.hold.on);
  hold.textContent = view.hold.on ? 'All actions are held – release' : 'Hold all actions';
  hold.onclick = () => {
    // Holding is always safe; releasing lets runs go on at once.
    if (!view.hold.on || confirm('Release the hold? Runs that stand still go on at once.')) act('/petrel/v1/hold', { on: !view.hold.on }, hold);
  };
  const notice = byId('notice');
  notice.hidden = view.problems.length === 0;
  notice.textContent = view.problems.join(' · ');
}

function alertNode(alert) {
  const note = alert.prediction;
  const lead = note && note.lead_seconds !== null && note.lead_seconds !== undefined ? `, about ${span(note.lead_seconds)} left` : '';
  return element('li', isFiring(alert) ? alert.level : alert.state,
    element('div', 'row', tag(alert.level), isFiring(alert) ? '' : tag(alert.state, 'quiet'),
      element('span', 'title', alert.labels.alertname), element('span', 'dim', alert.labels.instance ?? ''),
      moment(alert.resolved_at ?? alert.fired_at ?? alert.active_at)),
    // What does not fire takes one line: it must not push what fires off the screen.
    isFiring(alert) ? element('div', '', alert.annotations.summary ?? alert.annotations.description ?? '') : '',
    isFiring(alert) && note ? element('div', 'odds', `${percent(note.probability)} likely${lead}`) : '');
}

function drawAlerts(view) {
  const states = ['firing', 'pending', 'resolved'];
  const sorted = [...view.alerts].sort((a, b) => states.indexOf(a.state) - states.indexOf(b.state)
    || LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level) || b.active_at - a.active_at);
  const firing = sorted.filter(isFiring).length;
  const shown = sorted.slice(0, Math.min(ALERTS_MAX, firing + QUIET_ALERTS_MAX));
  const left = sorted.length - shown.length;
  byId('alerts-count').textContent = counted(sorted.filter(isFiring)).map(([level, count]) => `${count} ${level}`).join(', ');
  const nodes = shown.map(alertNode);
  fill('alerts', left > 0 ? [...nodes, element('li', 'empty', `and ${left} more, see petrel alerts`)] : nodes, 'Nothing fires.');
}

function stepNode(step) {
  return element('li', '', tag(step.state.replace('_', ' '), step.state),
    element('span', '', `${step.undoes === null ? '' : 'undo: '}${step.action}`, element('span', 'dim', ` on ${step.agent} · ${step.detail}`)));
}

function runNode(run) {
  const button = (label, verb, kind) => {
    const node = element('button', kind, label);
    node.type = 'button';
    node.onclick = () => act(`/petrel/v1/runs/${run.id}/${verb}`, { reason: 'from the console' }, node);
    return node;
  };
  const waiting = run.state === 'waiting';
  const going = ['planned', 'running', 'undoing'].includes(run.state);
  const ended = !waiting && !going;
  return element('li', waiting ? 'warning' : ended ? 'ended' : '',
    element('div', 'row', tag(waiting ? 'waits for you' : run.state, run.state), element('span', 'title', run.runbook),
      element('span', 'dim', `${subject(run)} · run ${run.id}`), moment(ended ? run.changed_at : run.created_at)),
    run.summary ? element('div', '', run.summary) : '',
    run.reason ? element('div', 'dim', run.reason) : '',
    run.steps.length ? element('ol', 'steps', run.steps.map(stepNode)) : '',
    waiting ? element('div', 'actions', button('Approve', 'approve', 'yes'), button('Deny', 'deny', ''), moment(run.expires_at, 'left')) : '',
    going ? element('div', 'actions', button('Abort', 'abort', 'stop')) : '');
}

function drawRuns(view) {
  const rank = (run) => (run.state === 'waiting' ? 0 : ['planned', 'running', 'undoing'].includes(run.state) ? 1 : 2);
  const sorted = [...view.runs].sort((a, b) => rank(a) - rank(b) || b.id - a.id);
  byId('runs-count').textContent = view.hold.on ? 'held: nothing is delivered' : '';
  fill('runs', sorted.slice(0, RUNS_MAX).map(runNode), 'Nothing has been done, and nothing waits for approval.');
}

function chance(probability) {
  const cell = element('span', 'chance', percent(probability));
  if (probability > 0.5) cell.style.background = `color-mix(in srgb, var(--critical) ${Math.round(probability * 55)}%, var(--track))`;
  else if (probability > 0.1) cell.style.background = `color-mix(in srgb, var(--warning) ${Math.round(probability * 90)}%, var(--track))`;
  return cell;
}

function timeLeft(row, longest) {
  const [early, median] = row.seconds_to_limit;
  if (row.refused) return element('span', 'dim', row.refused);
  if (median !== null && median < 1) return 'at its limit now';
  if (median !== null) return early !== null && early < median * 0.9 ? `${span(median)}, at the earliest ${span(early)}` : span(median);
  return element('span', 'dim', early === null ? `lasts beyond ${longest}` : `perhaps in ${span(early)}`);
}

function drawOutlooks(view) {
  const horizons = [...new Set(view.outlooks.flatMap((row) => row.probabilities.map(([horizon]) => horizon)))].sort((a, b) => spanMs(a) - spanMs(b));
  const sorted = [...view.outlooks].sort(bySoonest);
  const telling = sorted.filter((row) => odds(row) >= NEGLIGIBLE);
  const shown = allOutlooks ? sorted : telling;
  byId('outlooks-head').replaceChildren(...['Host', 'Resource', 'Left (median)', ...horizons.map((horizon) => `within ${horizon}`)]
    .map((text, i) => element('th', i > 2 ? 'number' : '', text)));
  const rows = shown.slice(0, OUTLOOKS_MAX).map((row) => element('tr', '',
    element('td', 'title', row.instance),
    element('td', 'what', row.what === row.resource ? row.resource : [row.what, element('span', 'dim', ` ${row.resource}`)]),
    element('td', 'left', timeLeft(row, horizons.at(-1))),
    ...horizons.map((horizon) => {
      const cell = element('td', 'number', chance(row.probabilities.find(([known]) => known === horizon)?.[1]));
      cell.dataset.label = `within ${horizon}`;
      return cell;
    })));
  if (!rows.length) {
    const learning = view.outlooks.filter((row) => row.refused).length;
    const text = !sorted.length || learning === sorted.length
      ? 'No outlook yet: a forecast needs a few minutes of samples first.'
      : `Nothing is likely to run out within ${horizons.at(-1)}.`;
    const cell = element('td', 'empty', text);
    cell.colSpan = 3 + horizons.length;
    rows.push(element('tr', '', cell));
  }
  byId('outlooks').replaceChildren(...rows);
  const more = byId('outlooks-more');
  const folded = sorted.length - telling.length;
  more.hidden = folded === 0;
  more.textContent = allOutlooks ? `Hide what is less likely than ${percent(NEGLIGIBLE)}` : `${folded} more, each less likely than ${percent(NEGLIGIBLE)}`;
  more.onclick = () => { allOutlooks = !allOutlooks; drawOutlooks(view); };
}

function meter(name, ratio, title) {
  const bar = element('i', ratio > 0.95 ? 'full' : ratio > 0.85 ? 'high' : '');
  bar.style.width = `${Math.min(100, Math.max(0, (ratio ?? 0) * 100))}%`;
  const node = element('div', 'meter', element('span', 'dim', name), element('span', 'bar', bar), element('span', '', percent(ratio)));
  if (title) node.title = title;
  return node;
}

function hostNode(host) {
  const wash = host.verdict === 'dead' ? 'critical' : isIll(host) ? 'warning' : '';
  return element('li', wash,
    element('div', 'row', element('span', 'title', host.name), tag(host.verdict), host.duty && host.duty !== 'active' ? tag(host.duty, 'quiet') : ''),
    isIll(host) && host.reason ? element('div', 'dim', host.reason) : '',
    meter('CPU', host.cpu_ratio), meter('Memory', host.memory_ratio), meter('Disk', host.filesystem_ratio_max, host.filesystem_fullest),
    meter('Strange', host.anomaly_rate, 'share of this host\u2019s series that behave unlike themselves'));
}

function drawHosts(view) {
  const order = ['dead', 'isolated', 'suspect', 'unknown', 'healthy'];
  const sorted = [...view.hosts].sort((a, b) => order.indexOf(a.verdict) - order.indexOf(b.verdict)
    || isStrange(b) - isStrange(a) || a.name.localeCompare(b.name));
  const ill = sorted.filter(isIll).length;
  byId('hosts-count').textContent = sorted.length ? (ill ? `${ill} of ${sorted.length} not healthy` : `${sorted.length}, all healthy`) : '';
  const nodes = sorted.slice(0, HOSTS_MAX).map(hostNode);
  const left = sorted.length - nodes.length;
  fill('hosts', left > 0 ? [...nodes, element('li', 'empty', `and ${left} more, see petrel hosts`)] : nodes, 'No host has reported yet.');
}

function drawLedger(view) {
  const ledger = view.ledger;
  const rows = ledger.calibration.filter((bucket) => bucket.count > 0).map((bucket) =>
    meter(`said ${percent(bucket.predicted)}`, bucket.realised, plural(bucket.count, 'settled prediction', 'settled predictions')));
  const text = ledger.settled
    ? `${ledger.settled} settled, ${ledger.open} open. Of the predictions that said so much, this share came true:`
    : `${plural(ledger.open, 'prediction is', 'predictions are')} open; none has come due yet.`;
  byId('ledger').replaceChildren(element('p', 'dim', text), ...rows);
}

/** Parts of the page with what each of them shows. */
const PARTS = [
  [drawTiles, (view) => [view.alerts, view.runs, view.outlooks, view.hosts.map((host) => [host.name, host.verdict])]],
  [drawHead, (view) => [view.version, view.hold, view.problems]],
  [drawAlerts, (view) => view.alerts],
  [drawRuns, (view) => [view.runs, view.hold]],
  [drawOutlooks, (view) => view.outlooks],
  [drawHosts, (view) => view.hosts],
  [drawLedger, (view) => view.ledger],
];

function draw(view) {
  for (const [part, shows] of PARTS) {
    const now = JSON.stringify(shows(view));
    if (drawn[part.name] !== now) {
      part(view);
      drawn[part.name] = now;
    }
  }
  tellTimes();
}

function headers() {
  const token = sessionStorage.getItem('petrel-token');
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function askForToken() {
  const dialog = byId('token-dialog');
  if (dialog.open) return;
  byId('freshness').textContent = 'Waiting for a token.';
  byId('token-label').textContent = sessionStorage.getItem('petrel-token')
    ? 'That token is not known to this server. Try another.' : 'This server asks for a user\u2019s token.';
  dialog.onclose = () => { sessionStorage.setItem('petrel-token', byId('token').value.trim()); byId('token').value = ''; refresh(); };
  dialog.showModal();
}

async function act(path, body, button) {
  if (button) button.disabled = true;
  const refusal = byId('refusal');
  refusal.hidden = true;
  const answer = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json', ...headers() }, body: JSON.stringify({ by: 'console', ...body }) })
    .catch((error) => ({ ok: false, json: async () => ({ error: String(error) }) }));
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    refusal.hidden = false;
    refusal.textContent = told.error ?? 'The server refused.';
  }
  if (button) button.disabled = false;
  await refresh();
}

async function refresh() {
  try {
    const answer = await fetch('/petrel/v1/overview', { headers: headers() });
    if (answer.status === 401) { askForToken(); return; }
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const view = await answer.json();
    [clockAheadMs, fetchedAt] = [view.now - Date.now(), Date.now()];
    draw(view);
    document.body.classList.remove('old');
    byId('freshness').textContent = 'live';
  } catch (error) {
    document.body.classList.add('old');
    const age = fetchedAt ? `${span((Date.now() - fetchedAt) / 1000)} old` : 'empty';
    byId('freshness').textContent = `This page is ${age}: ${error.message}. Trying again.`;
  }
}

async function live() {
  await refresh();
  setTimeout(live, PERIOD_MS);
}

live();
