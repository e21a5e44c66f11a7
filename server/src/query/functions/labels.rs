//! `label_replace` and `label_join`: the same values under other labels.

use crate::query::answer::merge;
use crate::query::ast::Call;
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{Frame, Grid};
use crate::query::parse::literal::{is_label_name, literal_braces};
use crate::series::{Labels, NAME};

use super::arg;

/// The value that a series' label gets, `None` where it stays.
type Relabel = Box<dyn Fn(&Labels) -> Option<String>>;

/// `label_replace` or `label_join`.
pub(super) fn call(evaluator: &Evaluator<'_>, call: &Call, grid: &Grid) -> Result<Frame, QueryError> {
    let text = |place| evaluator.text(arg(call, place)?, grid);
    let target = text(1)?;
    if !is_label_name(&target) {
        return Err(QueryError::LabelName { name: target });
    }
    let relabel: Relabel = if call.function == "label_join" {
        let separator = text(2)?;
        let sources = (3..call.args.len()).map(text).collect::<Result<Vec<_>, _>>()?;
        Box::new(move |labels| {
            let values: Vec<&str> = sources.iter().map(|source| labels.get(source).unwrap_or("")).collect();
            Some(values.join(&separator))
        })
    } else {
        let (replacement, source, pattern) = (text(2)?, text(3)?, text(4)?);
        let compile =
            |pattern: &str| regex::RegexBuilder::new(&format!("^(?s:{pattern})$")).size_limit(1 << 20).build();
        let regex = compile(&pattern).or_else(|_| compile(&literal_braces(&pattern)));
        let regex = regex.map_err(|error| QueryError::Regex { pattern, source: Box::new(error) })?;
        Box::new(move |labels| {
            let captures = regex.captures(labels.get(&source).unwrap_or(""))?;
            let mut value = String::new();
            captures.expand(&replacement, &mut value);
            Some(value)
        })
    };
    let mut streams = evaluator.vector(arg(call, 0)?, grid)?;
    for stream in &mut streams {
        if let Some(value) = relabel(&stream.labels) {
            stream.labels = stream.labels.with(&target, &value);
            // A name that was written on purpose stays.
            stream.drop_name &= target != NAME;
        }
    }
    Ok(Frame::Vector(merge(streams)?))
}
