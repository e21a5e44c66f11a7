//! What texts mean and what is said of those that mean nothing.

use super::parse;

fn read(text: &str) -> String {
    parse(text).map_or_else(|error| error.to_string(), |expr| expr.to_string())
}

#[test]
fn what_is_read_is_written_back_as_prometheus_writes_it() {
    for (text, want) in [
        ("1_000 + 0x10", "1000 + 16"),
        ("-1^2", "-1 ^ 2"),
        ("- m ^ 2", "-m ^ 2"),
        ("a + b * c ^ d ^ e % f", "a + b * c ^ d ^ e % f"),
        ("m{a='b',}[1h30m] offset -5m @ 10", r#"m{a="b"}[1h30m] @ 10.000 offset -5m"#),
        ("m[5m*2]", "m[5m * 2]"),
        ("m[(1m+30s)*2:step()] offset -(1m-1s)", "m[(1m + 30s) * 2:step()] offset -(1m - 1s)"),
        ("m offset 1m*2", "m offset 1m * 2"),
        ("m offset max(step(), 1m)", "m offset max_of(step(), 1m)"),
        ("rate(m_total[5m] anchored)", "rate(m_total[5m] anchored)"),
        ("m smoothed offset 1m", "m smoothed offset 1m"),
        ("a + on(x) group_left(y) fill(0) b", "a + on (x) group_left (y) fill (0) b"),
        ("a == bool fill_left(-1) fill_right(2) b", "a == bool fill_left (-1) fill_right (2) b"),
        (r#"{"my metric", "a b"="c"}"#, r#"{__name__="my metric","a b"="c"}"#),
        (r#"sum by ("a b", c) (m)"#, r#"sum by ("a b", c) (m)"#),
        ("sum(m) without(a)", "sum without (a) (m)"),
        ("sum + by + offset", "sum + by + offset"),
        ("SUM BY (a) (m) AND ON() m", "sum by (a) (m) and on () m"),
        ("info(m, {__name__=~'.*', a=~'.*'})", r#"info(m, {__name__=~".*",a=~".*"})"#),
        ("m @ start() # comment\n + end", "m @ start() + end"),
        ("topk(3, m)[5m:]", "topk(3, m)[5m:]"),
        ("fill + fill_left", "fill + fill_left"),
    ] {
        assert_eq!(read(text), want, "{text}");
        assert_eq!(read(want), want, "{want}");
    }
}

#[test]
fn a_function_that_was_renamed_is_told_with_its_name_of_today() {
    let error = parse("holt_winters(m[5m], 0.1, 0.1)").unwrap_err().to_string();
    assert!(error.ends_with("\"holt_winters\", which is now double_exponential_smoothing"), "{error}");
}

#[test]
fn errors_have_the_words_and_places_of_prometheus() {
    for (text, want) in [
        ("", "1:1: parse error: no expression found in input"),
        ("1 +", "1:4: parse error: unexpected end of input"),
        ("a b", "1:3: parse error: unexpected identifier \"b\""),
        ("a\n+ )", "2:3: parse error: unexpected right parenthesis ')'"),
        ("sum(m", "1:6: parse error: unclosed left parenthesis"),
        ("m{", "1:3: parse error: unexpected end of input inside braces"),
        ("m[5m", "1:5: parse error: unclosed left bracket"),
        ("m[", "1:3: parse error: unexpected end of input in duration expression"),
        (
            "m[]",
            "1:3: parse error: unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
        ),
        ("m[0]", "1:3: parse error: duration must be greater than 0"),
        ("m[5m/0]", "1:5: parse error: division by zero"),
        ("m[foo]", "1:3: parse error: unexpected character in duration expression: 'f'"),
        ("m[1e300]", "1:3: parse error: duration out of range"),
        ("m[5m1h]", "1:3: parse error: not a valid duration string: \"5m1h\""),
        ("m[5m][5m]", "1:6: parse error: ranges only allowed for vector selectors"),
        ("m offset 1m[5m]", "1:12: parse error: no offset modifiers allowed before range"),
        ("m @ 1 [5m]", "1:7: parse error: no @ modifiers allowed before range"),
        (
            "m offset",
            "1:9: parse error: unexpected end of input in offset, expected number, duration, step(), or range()",
        ),
        ("m offset 1m offset 1m", "1:1: parse error: offset may not be set multiple times"),
        (
            "1 offset 1m",
            "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
        ),
        ("m @ x", "1:5: parse error: unexpected identifier \"x\" in @, expected timestamp"),
        ("m @ Inf", "1:1: parse error: timestamp out of bounds for @ modifier: +Inf"),
        ("m{a}", "1:4: parse error: unexpected \"}\" in label matching, expected label matching operator"),
        ("m{a=b}", "1:5: parse error: unexpected identifier \"b\" in label matching, expected string"),
        ("m{a='b' c='d'}", "1:9: parse error: unexpected identifier \"c\" in label matching, expected \",\" or \"}\""),
        ("m{__name__='n'}", "1:1: parse error: metric name must not be set twice: \"m\" or \"n\""),
        ("{a=~'.*'}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ("sum by a (m)", "1:8: parse error: unexpected identifier \"a\" in grouping opts, expected \"(\""),
        ("sum by (1) (m)", "1:9: parse error: unexpected number \"1\" in grouping opts, expected label"),
        ("sum()", "1:1: parse error: no arguments for aggregate expression provided"),
        ("topk(m)", "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1"),
        ("sum(1)", "1:5: parse error: expected type instant vector in aggregation expression, got scalar"),
        ("nope(m)", "1:1: parse error: unknown function with name \"nope\""),
        ("rate(m)", "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector"),
        ("rate()", "1:1: parse error: expected 1 argument(s) in call to \"rate\", got 0"),
        ("round(m, 1, 2)", "1:1: parse error: expected at most 2 argument(s) in call to \"round\", got 3"),
        ("abs(m,)", "1:6: parse error: trailing commas not allowed in function call args"),
        ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        ("m + bool m", "1:3: parse error: bool modifier can only be used on comparison operators"),
        ("m and 1", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"),
        ("m and on(a) group_left m", "1:1: parse error: no grouping allowed for \"and\" operation"),
        ("m + on(a) group_left(a) m", "1:3: parse error: label \"a\" must not occur in ON and GROUP clause at once"),
        ("m + on(a) 1", "1:1: parse error: vector matching only allowed between instant vectors"),
        ("m or fill(1) m", "1:1: parse error: filling in missing series not allowed for set operators"),
        (
            "-'a'",
            "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
        ),
        ("1[5m:]", "1:1: parse error: subquery is only allowed on instant vector, got scalar instead"),
        ("m[5m:1m] anchored", "1:1: parse error: anchored modifier is not supported for subqueries"),
        ("m anchored smoothed", "1:1: parse error: anchored and smoothed modifiers cannot be used together"),
        ("info(m, n)", "1:9: parse error: expected label selectors only, got vector selector instead"),
        ("'a", "1:1: parse error: unterminated quoted string"),
        ("'\\q'", "1:1: parse error: unknown escape sequence U+0071 'q'"),
        ("5.5.5", "1:1: parse error: bad number or duration syntax: \"5.5.5\""),
        ("m $", "1:3: parse error: unexpected character: '$'"),
        ("m =~ 'a'", "1:3: parse error: unexpected character after '=': '~'"),
    ] {
        assert_eq!(read(text), want, "{text}");
    }
}
