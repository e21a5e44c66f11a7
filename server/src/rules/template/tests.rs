//! Templates as data: the text, and what comes out. Expected values were worked out from Prometheus' documentation of its functions.

use super::*;
use crate::series::Labels;

fn expand(text: &str) -> String {
    let labels = Labels::new([("instance", "web1.example:9100"), ("mountpoint", "/data"), ("__name__", "x")]);
    let external_labels = BTreeMap::from([("cluster".to_owned(), "eu1".to_owned())]);
    let query = |text: &str, _at: Timestamp| -> Result<Vec<(Labels, f64)>, super::super::QueryFailed> {
        match text {
            "up" => Ok(vec![(Labels::new([("instance", "b")]), 1.0), (Labels::new([("instance", "a")]), 0.0)]),
            "none" => Ok(vec![]),
            _ => Err("refused".into()),
        }
    };
    let scope = Scope {
        labels: &labels,
        value: 0.934_567,
        external_labels: &external_labels,
        external_url: "http://petrel",
        at: 0,
        query: &query,
    };
    match Template::parse(text) {
        Err(error) => format!("refused {error}"),
        Ok(template) => template.expand(&scope).unwrap_or_else(|error| format!("failed {error}")),
    }
}

#[test]
fn templates_give_what_prometheus_gives() {
    for (text, want) in [
        ("plain {not} a template", "plain {not} a template"),
        ("{{ $labels.instance }} {{ .Labels.mountpoint }}{{ $labels.absent }}", "web1.example:9100 /data"),
        ("{{ $externalLabels.cluster }} {{ .ExternalURL }} {{ externalURL }}", "eu1 http://petrel http://petrel"),
        ("{{ $value }} {{ .Value }}", "0.934567 0.934567"),
        ("{{ $value | humanizePercentage }} {{ humanize 1234567.0 }}", "93.46% 1.235M"),
        ("{{ humanize 0.0012 }} {{ humanize 0 }} {{ humanize \"-2500\" }}", "1.2m 0 -2.5k"),
        ("{{ 1048576 | humanize1024 }}B {{ humanize1024 0.5 }}", "1MiB 0.5"),
        (
            "{{ 93784 | humanizeDuration }};{{ humanizeDuration 61.5 }};{{ humanizeDuration 0.002 }}",
            "1d 2h 3m 4s;1m 1s;2ms",
        ),
        ("{{ humanizeDuration 12.34567 }} {{ humanizeDuration -3661 }}", "12.35s -1h 1m 1s"),
        ("{{ 1448020264.5 | humanizeTimestamp }}", "2015-11-20 11:51:04.5 +0000 UTC"),
        (
            "{{ printf \"%.2f %s %d %v %q %g %e %%\" $value \"s\" 3 1.5 \"q\" 0.25 12345.678 }}",
            "0.93 s 3 1.5 \"q\" 0.25 1.234568e+04 %",
        ),
        ("{{ printf \"%d %s\" 1.5 }}", "%!d(float64=1.5) %!s(MISSING)"),
        ("{{ printf \"%5.1f|%-4s|%04d|%+d\" 3.14159 \"ab\" 42 7 }}", "  3.1|ab  |0042|+7"),
        ("{{ 1000000.0 }} {{ 123456.0 }} {{ 0.00001 }} {{ 100 }}", "1e+06 123456 1e-05 100"),
        ("{{ title \"disk of web\" }} {{ toUpper \"a\" }} {{ \"B\" | toLower }}", "Disk Of Web A b"),
        (
            "{{ match \"^web[0-9]\" $labels.instance }} {{ reReplaceAll \"(.*):.*\" \"$1\" $labels.instance }}",
            "true web1.example",
        ),
        ("{{ stripPort $labels.instance }} {{ stripDomain $labels.instance }}", "web1.example web1:9100"),
        ("{{ if gt $value 0.9 }}high{{ else if gt $value 0.5 }}mid{{ else }}low{{ end }}", "high"),
        ("{{ if and (lt $value 0.95) (ge $value 0.5) }}yes{{ end }}{{ if not true }}no{{ end }}", "yes"),
        (
            "{{ if eq $labels.mountpoint \"/\" \"/data\" }}a{{ end }}{{ if ne $labels.instance \"b\" }}b{{ end }}{{ or \"\" \"c\" }}",
            "abc",
        ),
        (
            "{{ range query \"up\" | sortByLabel \"instance\" }}{{ .Labels.instance }}={{ .Value }} {{ end }}",
            "a=0 b=1 ",
        ),
        (
            "{{ range $i, $s := query \"up\" }}{{ $i }}{{ $s.Labels.instance }}{{ label \"instance\" . }}{{ end }}",
            "0bb1aa",
        ),
        ("{{ range query \"none\" }}x{{ else }}nothing{{ end }}", "nothing"),
        ("{{ query \"up\" | first | value | printf \"%.1f\" }}", "1.0"),
        (
            "{{ with query \"none\" }}x{{ else }}empty{{ end }}{{ with $q := query \"up\" }}{{ len $q }}{{ end }}",
            "empty2",
        ),
        ("{{ (query \"up\" | first).Labels.instance }} {{ index $labels \"mountpoint\" }}", "b /data"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("a  {{- \" b \" -}}  c {{/* said nothing */}}d", "a b c d"),
        ("{{ range $name, $value := .ExternalLabels }}{{ $name }}:{{ $value }}{{ end }}", "cluster:eu1"),
        ("{{ parseDuration \"1h30m\" }}", "5400"),
    ] {
        assert_eq!(expand(text), want, "{text}");
    }
}

#[test]
fn faults_are_told_with_their_place() {
    for (text, want) in [
        ("ok {{ nope 1 }}", "refused at byte 6 of the template: function `nope` is not known"),
        ("{{ $other }}", "refused at byte 3 of the template: variable `$other` is not declared"),
        ("{{ if true }}x", "refused at byte 13 of the template: `if` is not closed"),
        ("{{ $value ", "refused at byte 0 of the template: `{{` is not closed"),
        ("{{ \"abc }}", "refused at byte 3 of the template: `\"` is not closed"),
        ("x {{ end }}", "refused at byte"),
        ("{{ humanize }}", "refused at byte 3 of the template: `humanize` cannot take 0 arguments"),
        ("{{ }}", "refused at byte 3 of the template: unexpected `missing value`"),
        ("{{ ; }}", "refused at byte 3 of the template: unexpected `;`"),
        (
            "{{ query \"none\" | first }}",
            "failed at byte 18 of the template: first() called on vector with no elements",
        ),
        ("{{ query \"boom\" }}", "failed at byte 3 of the template: query failed: refused"),
        ("{{ $value.X }}", "failed at byte 3 of the template: float64 has no field `X`"),
        ("{{ gt $labels.instance 1 }}", "failed at byte 3 of the template: string and int cannot be compared"),
    ] {
        let got = expand(text);
        assert!(got.starts_with(want), "{text}: {got}");
    }
    assert!(expand(&"x".repeat(5000)).contains("at most 4096"));
    assert!(
        expand(&"{{ (".repeat(200)).contains("nested more than 32 deep")
            || expand(&"{{ (".repeat(200)).contains("refused")
    );
    assert!(expand(&format!("{{{{ {}1{} }}}}", "(".repeat(100), ")".repeat(100))).contains("nested more than 32 deep"));
}

#[test]
fn work_is_bounded() {
    let nested = "{{ range query \"up\" }}".repeat(20) + "x" + &"{{ end }}".repeat(20);
    assert!(expand(&nested).contains("takes more than"), "{}", expand(&nested));
    let wide = format!(
        "{{{{ range query \"up\" }}}}{{{{ range query \"up\" }}}}{{{{ range query \"up\" }}}}{}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}",
        "y".repeat(3900)
    );
    assert!(expand(&wide).len() <= OUTPUT_LIMIT);
    let doubled =
        "{{ $x := \"0123456789abcdef\" }}".to_owned() + &"{{ $x = printf \"%s%s\" $x $x }}".repeat(40) + "{{ len $x }}";
    assert!(expand(&doubled).contains("takes more than"));
}

const OUTPUT_LIMIT: usize = 64 << 10;

proptest::proptest! {
    #[test]
    fn nothing_panics(text in "[{}()$.|a-z\" :=0-9é`\\\\-]{0,80}") {
        let _ = expand(&text);
        let _ = expand(&format!("{{{{ {text} }}}}"));
    }
}
