//! `petrel eval forecast`: quantiles of each series of a file for each step ahead.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, bail};
use petrel_models::forecast::ensemble;

/// Forecasts all series: `series,step,mean,q0.025,q0.1,q0.5,q0.9,q0.975`.
///
/// # Errors
/// The file and line that is no series, or one too short to be forecast.
pub fn run(path: &Path, text: &str, horizon: usize, season: usize) -> anyhow::Result<String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    match lines.next() {
        Some((_, header)) if header.trim() == "series,values" => {}
        _ => bail!("{}:1: the first line is not `series,values`", path.display()),
    }
    let mut out = "series,step,mean,q0.025,q0.1,q0.5,q0.9,q0.975\n".to_owned();
    let (total, watched) = (text.lines().count(), std::io::stderr().is_terminal());
    for (place, line) in lines {
        let at = || format!("{}:{}", path.display(), place + 1);
        let (name, values) =
            line.split_once(',').with_context(|| format!("{}: no comma after the series' name", at()))?;
        let values = values.split_whitespace().map(|word| match word.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => bail!("{}: `{word}` is no finite number", at()),
        });
        let values = values.collect::<anyhow::Result<Vec<f64>>>()?;
        let ahead = ensemble(&values, season, horizon).with_context(|| format!("{}: series {name}", at()))?;
        for (step, (mean, quantiles)) in ahead.mean.iter().zip(&ahead.quantiles).enumerate() {
            let [a, b, c, d, e] = quantiles;
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name},{},{mean},{a},{b},{c},{d},{e}", step + 1);
        }
        if watched && place % 100 == 0 {
            eprint!("\r{place} of {total} series");
        }
    }
    if watched {
        eprintln!("\r{total} series, done");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_each_series_is_a_line_and_mistakes_are_placed() {
        let values: Vec<String> = (0..40).map(|value| (value % 4).to_string()).collect();
        let file = format!("series,values\na,{}\n", values.join(" "));
        let path = Path::new("x.csv");
        let out = run(path, &file, 3, 4).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!((lines.len(), lines[1].split(',').count()), (4, 8));
        assert!(lines[3].starts_with("a,3,"));
        let wrong = |text: &str| format!("{:#}", run(path, text, 3, 1).unwrap_err());
        assert!(wrong("a,1 2\n").contains("x.csv:1"));
        assert!(wrong("series,values\na 1\n").contains("x.csv:2"));
        assert!(wrong("series,values\na,1 x\n").contains("`x` is no finite number"));
        assert!(wrong("series,values\na,1 2\n").contains("only 2 points of history, 20 are needed"));
    }
}
