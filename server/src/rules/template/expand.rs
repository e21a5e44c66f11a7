//! Walks a template's tree with bounded work and writes the text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::functions::Function;
use super::parse::{Command, Node, Operand, Pipeline};
use super::value::{Found, Value};
use super::{Fault, Scope, TemplateError};
use crate::series::Labels;

/// Nodes and operands walked in one expansion: a range over a thousand samples with ten pieces each fits.
const STEPS_MAX: usize = 20_000;
/// Bytes written by one expansion; a mail with more is not read.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Queries in one expansion: each may read the whole store.
const QUERIES_MAX: usize = 32;

/// The state of one expansion.
pub(super) struct Machine<'a> {
    scope: &'a Scope<'a>,
    dot: Value,
    variables: Vec<(Cow<'a, str>, Value)>,
    steps: usize,
    queries: usize,
    out: String,
}

pub(super) fn expand(nodes: &[Node], scope: &Scope<'_>) -> Result<String, TemplateError> {
    let texts = |name, text: &str| (Cow::Borrowed(name), Value::Text(text.to_owned()));
    let variables = vec![
        (Cow::Borrowed(""), Value::Root),
        (Cow::Borrowed("labels"), Value::Map(map_of(scope.labels))),
        (Cow::Borrowed("value"), Value::Float(scope.value)),
        (Cow::Borrowed("externalLabels"), Value::Map(scope.external_labels.clone())),
        texts("externalURL", scope.external_url),
    ];
    let mut machine = Machine { scope, dot: Value::Root, variables, steps: 0, queries: 0, out: String::new() };
    machine.nodes(nodes)?;
    Ok(machine.out)
}

fn map_of(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Machine<'_> {
    /// The function `query`.
    pub(super) fn query(&mut self, text: &str) -> Result<Value, Fault> {
        self.queries += 1;
        if self.queries > QUERIES_MAX {
            return Err(Fault::Exhausted(QUERIES_MAX, "queries"));
        }
        let found = (self.scope.query)(text, self.scope.at).map_err(|error| Fault::Query(error.to_string()))?;
        self.steps += found.len();
        let found = found.into_iter().map(|(labels, value)| Found { labels: map_of(&labels), value });
        Ok(Value::Vector(found.collect()))
    }

    /// The function `externalURL`.
    pub(super) fn external_url(&self) -> &str {
        self.scope.external_url
    }

    fn step(&mut self, at: usize) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(TemplateError { at, fault: Fault::Exhausted(STEPS_MAX, "steps") });
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), TemplateError> {
        if self.out.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(TemplateError { at: 0, fault: Fault::Exhausted(OUTPUT_BYTES_MAX, "bytes of output") });
        }
        self.out.push_str(text);
        Ok(())
    }

    fn nodes(&mut self, nodes: &[Node]) -> Result<(), TemplateError> {
        let known = self.variables.len();
        for node in nodes {
            self.node(node)?;
        }
        self.variables.truncate(known);
        Ok(())
    }

    fn node(&mut self, node: &Node) -> Result<(), TemplateError> {
        self.step(0)?;
        match node {
            Node::Text(text) => self.write(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline)?;
                self.write(&value.to_string())
            }
            Node::Assign { name, fresh, pipeline } => {
                let value = self.pipeline(pipeline)?;
                match self.variables.iter_mut().rev().find(|(known, _)| !fresh && known == name) {
                    Some((_, old)) => *old = value,
                    None => self.variables.push((Cow::Owned(name.clone()), value)),
                }
                Ok(())
            }
            Node::If { arms, otherwise } => self.branches(arms, otherwise),
            Node::With { over, body, otherwise } => {
                let known = self.variables.len();
                let value = self.pipeline(over)?;
                if value.is_true() {
                    self.with_dot(value, body)?;
                } else {
                    self.nodes(otherwise)?;
                }
                self.variables.truncate(known);
                Ok(())
            }
            Node::Range { names, over, body, otherwise } => {
                let value = self.pipeline(over)?;
                self.range(names, value, body, otherwise)
            }
        }
    }

    fn with_dot(&mut self, dot: Value, body: &[Node]) -> Result<(), TemplateError> {
        let outer = std::mem::replace(&mut self.dot, dot);
        let done = self.nodes(body);
        self.dot = outer;
        done
    }

    fn branches(&mut self, arms: &[(Pipeline, Vec<Node>)], otherwise: &[Node]) -> Result<(), TemplateError> {
        let known = self.variables.len();
        for (condition, body) in arms {
            if self.pipeline(condition)?.is_true() {
                self.nodes(body)?;
                self.variables.truncate(known);
                return Ok(());
            }
        }
        self.nodes(otherwise)?;
        self.variables.truncate(known);
        Ok(())
    }

    fn range(&mut self, names: &[String], over: Value, body: &[Node], otherwise: &[Node]) -> Result<(), TemplateError> {
        let elements: Vec<(Value, Value)> = match over {
            Value::Vector(vector) => {
                let numbered = vector.into_iter().enumerate();
                numbered.map(|(i, found)| (Value::Int(i as i64), Value::Sample(Box::new(found)))).collect()
            }
            Value::Map(map) => map.into_iter().map(|(name, value)| (Value::Text(name), Value::Text(value))).collect(),
            Value::Nothing => Vec::new(),
            other => {
                let fault = Fault::Value(format!("range cannot go over {}", other.type_name()));
                return Err(TemplateError { at: 0, fault });
            }
        };
        if elements.is_empty() {
            return self.nodes(otherwise);
        }
        for (key, element) in elements {
            let known = self.variables.len();
            match names {
                [item] => self.variables.push((Cow::Owned(item.clone()), element.clone())),
                [index, item] => {
                    self.variables.push((Cow::Owned(index.clone()), key));
                    self.variables.push((Cow::Owned(item.clone()), element.clone()));
                }
                _ => {}
            }
            self.with_dot(element, body)?;
            self.variables.truncate(known);
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Value, TemplateError> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped)?);
        }
        let value = piped.unwrap_or(Value::Nothing);
        if let Some(name) = &pipeline.declares {
            self.variables.push((Cow::Owned(name.clone()), value.clone()));
        }
        self.step(pipeline.at)?;
        Ok(value)
    }

    fn command(&mut self, command: &Command, piped: Option<Value>) -> Result<Value, TemplateError> {
        let mut values = Vec::with_capacity(command.operands.len() + 1);
        for operand in &command.operands {
            values.push(self.operand(operand, command.at)?);
        }
        values.extend(piped);
        match command.function {
            Some(function) => self.call(function, &values, command.at),
            None => Ok(values.pop().unwrap_or(Value::Nothing)),
        }
    }

    fn call(&mut self, function: &Function, values: &[Value], at: usize) -> Result<Value, TemplateError> {
        let value = (function.call)(self, values).map_err(|fault| TemplateError { at, fault })?;
        // A text that is doubled forty times would otherwise eat the machine before anything is written.
        match &value {
            Value::Text(text) if text.len() > OUTPUT_BYTES_MAX => {
                Err(TemplateError { at, fault: Fault::Exhausted(OUTPUT_BYTES_MAX, "bytes of text") })
            }
            _ => Ok(value),
        }
    }

    fn operand(&mut self, operand: &Operand, at: usize) -> Result<Value, TemplateError> {
        self.step(at)?;
        match operand {
            Operand::Dot => Ok(self.dot.clone()),
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                Ok(found.map_or(Value::Nothing, |(_, value)| value.clone()))
            }
            Operand::Group(pipeline) => self.pipeline(pipeline),
            Operand::Call(function) if function.takes(0) => self.call(function, &[], at),
            Operand::Call(function) => Err(TemplateError { at, fault: Fault::Arguments(function.name, 0) }),
            Operand::Field(base, names) => {
                let mut value = self.operand(base, at)?;
                for name in names {
                    value = self.field(&value, name).map_err(|fault| TemplateError { at, fault })?;
                }
                Ok(value)
            }
        }
    }

    fn field(&self, base: &Value, name: &str) -> Result<Value, Fault> {
        match (base, name) {
            (Value::Map(map), _) => Ok(Value::Text(map.get(name).cloned().unwrap_or_default())),
            (Value::Sample(found), "Labels") => Ok(Value::Map(found.labels.clone())),
            (Value::Sample(found), "Value") => Ok(Value::Float(found.value)),
            (Value::Root, "Labels") => Ok(Value::Map(map_of(self.scope.labels))),
            (Value::Root, "Value") => Ok(Value::Float(self.scope.value)),
            (Value::Root, "ExternalLabels") => Ok(Value::Map(self.scope.external_labels.clone())),
            (Value::Root, "ExternalURL") => Ok(Value::Text(self.scope.external_url.to_owned())),
            _ => Err(Fault::Value(format!("{} has no field `{name}`", base.type_name()))),
        }
    }
}
