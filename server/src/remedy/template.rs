//! The templates in runbooks' strings: minijinja over the alert and the plan, with bounded text, time and output. A template that
//! names something absent fails; it never renders as empty, because an empty name could match more than was meant.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Serde, Value};
use minijinja::{Environment, UndefinedBehavior};

/// Longest template, and longest result, bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Instructions one rendering may take; a plain substitution takes about ten.
const FUEL: u64 = 10_000;
/// What a template may name.
const VARIABLES: [&str; 4] = ["alert", "labels", "annotations", "plan"];

/// What the result is used as; values are escaped for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Plain text.
    Text,
    /// A PromQL expression: values go inside double-quoted strings, so quotes and backslashes in them are escaped.
    PromQl,
}

/// A template that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    source: String,
    used_as: Use,
}

/// Why a template was refused or could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Too long.
    #[error("the text has {bytes} bytes; at most {TEXT_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Syntax.
    #[error("template cannot be read: {said}")]
    Syntax {
        /// The engine's word.
        said: String,
    },
    /// It names something that never exists.
    #[error("template names `{name}`; there is only {}", VARIABLES.join(", "))]
    UnknownVariable {
        /// The name.
        name: String,
    },
    /// Rendering failed, most often for want of a label.
    #[error("template `{source_text}` cannot be filled in: {said}")]
    Render {
        /// The template.
        source_text: String,
        /// The engine's word.
        said: String,
    },
}

impl Template {
    /// Checks length, syntax and names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(source: &str, used_as: Use) -> Result<Template, TemplateError> {
        if source.len() > TEXT_BYTES_MAX {
            return Err(TemplateError::TooLong { bytes: source.len() });
        }
        let environment = environment(used_as);
        let compiled =
            environment.template_from_str(source).map_err(|error| TemplateError::Syntax { said: error.to_string() })?;
        let mut names: Vec<String> = compiled.undeclared_variables(false).into_iter().collect();
        names.sort_unstable();
        let known = |name: &String| {
            VARIABLES.contains(&name.as_str()) || environment.globals().any(|(global, _)| global == name)
        };
        match names.into_iter().find(|name| !known(name)) {
            Some(name) => Err(TemplateError::UnknownVariable { name }),
            None => Ok(Template { source: source.to_owned(), used_as }),
        }
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Fills the template in.
    ///
    /// # Errors
    /// Something named is absent, the work is too much, or the result too long.
    pub fn render(&self, context: &serde_json::Value) -> Result<String, TemplateError> {
        self.render_value(Value::from(Serde(context)))
    }

    /// Fills it in with a stand-in for every name, so that what surrounds the names can be checked before any alert exists.
    /// `None` where the template computes with values, which a stand-in cannot do.
    pub fn render_stand_in(&self) -> Option<String> {
        self.render_value(Value::from_object(StandIn)).ok()
    }

    fn render_value(&self, context: Value) -> Result<String, TemplateError> {
        let failed = |said: String| TemplateError::Render { source_text: self.source.clone(), said };
        let text =
            environment(self.used_as).render_str(&self.source, context).map_err(|error| failed(error.to_string()))?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(TemplateError::TooLong { bytes: text.len() });
        }
        Ok(text)
    }
}

fn environment(used_as: Use) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    if used_as == Use::PromQl {
        environment.set_formatter(|out, _, value| {
            if value.is_undefined() {
                return Err(minijinja::ErrorKind::UndefinedError.into());
            }
            let text = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            out.write_str(&text).map_err(minijinja::Error::from)
        });
    }
    environment
}

/// Has every attribute, each again a stand-in, and prints as a harmless word.
#[derive(Debug)]
struct StandIn;

impl Object for StandIn {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::from_object(StandIn))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("x")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(source: &str, used_as: Use) -> String {
        let context = json!({"labels": {"instance": "web1", "evil": "a\"} or vector(1) #\\"}, "plan": {}});
        match Template::parse(source, used_as).and_then(|template| template.render(&context)) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn templates_render_or_say_why_not() {
        assert_eq!(check("lb-{{ labels.instance }}", Use::Text), "lb-web1");
        assert_eq!(check(r#"up{instance="{{ labels.instance }}"} == 1"#, Use::PromQl), r#"up{instance="web1"} == 1"#);
        assert_eq!(check(r#"up{x="{{ labels.evil }}"}"#, Use::PromQl), r#"up{x="a\"} or vector(1) #\\"}"#);
        for (source, want) in [
            ("{{ labels.absent }}", "cannot be filled in"),
            ("{{ label.instance }}", "template names `label`; there is only alert, labels, annotations, plan"),
            ("{{ labels.instance", "cannot be read"),
            ("{% for i in range(100000) %}x{% endfor %}", "cannot be filled in"),
        ] {
            for used_as in [Use::Text, Use::PromQl] {
                let said = check(source, used_as);
                assert!(said.contains(want), "{source}: {said}");
            }
        }
        assert!(check(&"x".repeat(5000), Use::Text).contains("5000 bytes"));
    }

    #[test]
    fn a_stand_in_lets_the_surroundings_be_checked() {
        let template = Template::parse(r#"up{instance="{{ labels.instance }}", b="{{ plan.steps.x }}"}"#, Use::PromQl);
        assert_eq!(template.unwrap().render_stand_in().unwrap(), r#"up{instance="x", b="x"}"#);
    }
}
