//! Builds the tree of a template, and refuses what could only fail later: unknown functions and variables, wrong counts
//! of arguments, blocks without an end.

use super::functions::{self, Function};
use super::lex::{Token, Tokens};
use super::value::Value;
use super::{Fault, TemplateError};

/// Deepest nesting of blocks and parentheses: real rules have three, and the parser recurses once per level.
const DEPTH_MAX: usize = 32;

/// One piece of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Text as it stands.
    Text(String),
    /// `{{ pipeline }}`
    Print(Pipeline),
    /// `{{ $name := pipeline }}`, or `=` where not fresh.
    Assign { name: String, fresh: bool, pipeline: Pipeline },
    /// `if … else if … else … end`
    If { arms: Vec<(Pipeline, Vec<Node>)>, otherwise: Vec<Node> },
    /// `range … else … end`; of two names the first is the index.
    Range { names: Vec<String>, over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    /// `with … else … end`
    With { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands joined by `|`; each but the first gets the value before it as its last argument.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    /// `$x := …` inside `if` and `with`.
    pub(super) declares: Option<String>,
    pub(super) commands: Vec<Command>,
}

/// A function with arguments, or one operand.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) at: usize,
    pub(super) function: Option<&'static Function>,
    pub(super) operands: Vec<Operand>,
}

/// Something with a value.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Dot,
    Variable(String),
    Literal(Value),
    Group(Box<Pipeline>),
    Call(&'static Function),
    /// `.a.b` of something. A list, not a nest: a long chain must not recurse.
    Field(Box<Operand>, Vec<String>),
}

/// What ended a list of nodes.
enum End {
    Text,
    Block,
    Else,
}

struct Parser {
    tokens: Tokens,
    next: usize,
    depth: usize,
    variables: Vec<String>,
}

pub(super) fn parse(tokens: Tokens) -> Result<Vec<Node>, TemplateError> {
    let variables = ["", "labels", "value", "externalLabels", "externalURL"].map(str::to_owned).into();
    let mut parser = Parser { tokens, next: 0, depth: 0, variables };
    match parser.nodes()? {
        (nodes, End::Text) => Ok(nodes),
        (_, End::Else) => Err(parser.unexpected("else")),
        (_, End::Block) => Err(parser.unexpected("end")),
    }
}

impl Parser {
    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |(at, _)| *at)
    }

    fn fail(&self, fault: Fault) -> TemplateError {
        TemplateError { at: self.at(), fault }
    }

    fn unexpected(&self, what: &str) -> TemplateError {
        self.fail(Fault::Unexpected(what.to_owned()))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.next += 1;
        token
    }

    fn takes(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token) -> Result<(), TemplateError> {
        if self.takes(token) {
            return Ok(());
        }
        let found = self.peek().map_or_else(|| "end of text".to_owned(), |token| format!("{token:?}"));
        Err(self.unexpected(&found))
    }

    fn deeper<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T, TemplateError>) -> Result<T, TemplateError> {
        if self.depth >= DEPTH_MAX {
            return Err(self.fail(Fault::TooDeep(DEPTH_MAX)));
        }
        self.depth += 1;
        let known = self.variables.len();
        let done = body(self);
        self.variables.truncate(known);
        self.depth -= 1;
        done
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(token) = self.take() {
            if let Token::Text(text) = token {
                nodes.push(Node::Text(text));
                continue;
            }
            match self.peek() {
                Some(Token::Word(word)) if word == "end" => {
                    self.next += 1;
                    self.expect(&Token::Close)?;
                    return Ok((nodes, End::Block));
                }
                Some(Token::Word(word)) if word == "else" => {
                    self.next += 1;
                    return Ok((nodes, End::Else));
                }
                _ => nodes.push(self.action()?),
            }
        }
        Ok((nodes, End::Text))
    }

    fn action(&mut self) -> Result<Node, TemplateError> {
        let keyword = match self.peek() {
            Some(Token::Word(word)) if ["if", "range", "with"].contains(&word.as_str()) => word.clone(),
            _ => return self.print_or_assign(),
        };
        self.next += 1;
        self.deeper(|parser| match keyword.as_str() {
            "if" => parser.branches(),
            "range" => parser.range(),
            _ => {
                let over = parser.declaring_pipeline()?;
                parser.expect(&Token::Close)?;
                let (body, otherwise) = parser.block()?;
                Ok(Node::With { over, body, otherwise })
            }
        })
    }

    fn print_or_assign(&mut self) -> Result<Node, TemplateError> {
        let node = match (self.peek().cloned(), self.tokens.get(self.next + 1).map(|(_, token)| token)) {
            (Some(Token::Variable(name)), Some(Token::Mark(mark @ (":=" | "=")))) => {
                let fresh = *mark == ":=";
                if !fresh {
                    self.known(&name)?;
                }
                self.next += 2;
                let pipeline = self.pipeline()?;
                self.variables.push(name.clone());
                Node::Assign { name, fresh, pipeline }
            }
            _ => Node::Print(self.pipeline()?),
        };
        self.expect(&Token::Close)?;
        Ok(node)
    }

    fn branches(&mut self) -> Result<Node, TemplateError> {
        let mut arms = Vec::new();
        loop {
            let condition = self.declaring_pipeline()?;
            self.expect(&Token::Close)?;
            let (body, end) = self.nodes()?;
            arms.push((condition, body));
            match end {
                End::Text => return Err(self.fail(Fault::NotClosed("if"))),
                End::Block => return Ok(Node::If { arms, otherwise: Vec::new() }),
                End::Else if self.takes(&Token::Word("if".to_owned())) => {}
                End::Else => {
                    self.expect(&Token::Close)?;
                    return match self.nodes()? {
                        (otherwise, End::Block) => Ok(Node::If { arms, otherwise }),
                        _ => Err(self.fail(Fault::NotClosed("else"))),
                    };
                }
            }
        }
    }

    fn range(&mut self) -> Result<Node, TemplateError> {
        let mut names = Vec::new();
        if matches!(self.tokens.get(self.next + 1), Some((_, Token::Mark(":=" | ",")))) {
            while let Some(Token::Variable(name)) = self.peek().cloned() {
                self.next += 1;
                names.push(name);
                if names.len() == 2 || !self.takes(&Token::Mark(",")) {
                    break;
                }
            }
            self.expect(&Token::Mark(":="))?;
        }
        let over = self.pipeline()?;
        self.expect(&Token::Close)?;
        self.variables.extend(names.iter().cloned());
        let (body, otherwise) = self.block()?;
        Ok(Node::Range { names, over, body, otherwise })
    }

    /// The body of `range` and `with`, up to and with its `end`.
    fn block(&mut self) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        match self.nodes()? {
            (body, End::Block) => Ok((body, Vec::new())),
            (body, End::Else) => {
                self.expect(&Token::Close)?;
                match self.nodes()? {
                    (otherwise, End::Block) => Ok((body, otherwise)),
                    _ => Err(self.fail(Fault::NotClosed("else"))),
                }
            }
            (_, End::Text) => Err(self.fail(Fault::NotClosed("range or with"))),
        }
    }

    fn declaring_pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let declares = match (self.peek().cloned(), self.tokens.get(self.next + 1)) {
            (Some(Token::Variable(name)), Some((_, Token::Mark(":=")))) => {
                self.next += 2;
                Some(name)
            }
            _ => None,
        };
        let mut pipeline = self.pipeline()?;
        self.variables.extend(declares.clone());
        pipeline.declares = declares;
        Ok(pipeline)
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let at = self.at();
        let mut commands = vec![self.command(0)?];
        while self.takes(&Token::Mark("|")) {
            commands.push(self.command(1)?);
        }
        Ok(Pipeline { at, declares: None, commands })
    }

    /// `piped` is the number of arguments that the pipeline adds.
    fn command(&mut self, piped: usize) -> Result<Command, TemplateError> {
        let at = self.at();
        let mut operands = Vec::new();
        while !matches!(self.peek(), None | Some(Token::Close | Token::Mark("|" | ")" | "," | "=" | ":="))) {
            operands.push(self.operand()?);
        }
        let fail = |fault| Err(TemplateError { at, fault });
        let Some(first) = operands.first() else { return fail(Fault::Unexpected("missing value".to_owned())) };
        let Operand::Call(function) = *first else {
            if operands.len() + piped > 1 {
                return fail(Fault::Value("only a function can take arguments".to_owned()));
            }
            return Ok(Command { at, function: None, operands });
        };
        operands.remove(0);
        let count = operands.len() + piped;
        if !function.takes(count) {
            return fail(Fault::Arguments(function.name, count));
        }
        Ok(Command { at, function: Some(function), operands })
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let fail = self.at();
        let mut operand = match self.take() {
            Some(Token::Variable(name)) => {
                self.known(&name).map_err(|error| TemplateError { at: fail, ..error })?;
                Operand::Variable(name)
            }
            Some(Token::Field(name, _)) if name.is_empty() => Operand::Dot,
            Some(Token::Field(name, _)) => Operand::Field(Box::new(Operand::Dot), vec![name]),
            Some(Token::Quoted(text)) => Operand::Literal(Value::Text(text)),
            Some(Token::Number(text)) => Operand::Literal(number(&text).ok_or_else(|| self.unexpected(&text))?),
            Some(Token::Word(word)) => match word.as_str() {
                "true" | "false" => Operand::Literal(Value::Bool(word == "true")),
                "nil" => Operand::Literal(Value::Nothing),
                _ => Operand::Call(
                    functions::find(&word).ok_or(TemplateError { at: fail, fault: Fault::UnknownFunction(word) })?,
                ),
            },
            Some(Token::Mark("(")) => {
                let group = self.deeper(Parser::pipeline)?;
                self.expect(&Token::Mark(")"))?;
                Operand::Group(Box::new(group))
            }
            other => return Err(TemplateError { at: fail, fault: Fault::Unexpected(format!("{other:?}")) }),
        };
        while let Some(Token::Field(name, true)) = self.peek().cloned() {
            self.next += 1;
            match &mut operand {
                Operand::Field(_, names) => names.push(name),
                _ => operand = Operand::Field(Box::new(operand), vec![name]),
            }
        }
        Ok(operand)
    }

    fn known(&self, name: &str) -> Result<(), TemplateError> {
        if self.variables.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(self.fail(Fault::UnknownVariable(name.to_owned())))
    }
}

fn number(text: &str) -> Option<Value> {
    let integer = text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| i64::from_str_radix(hex, 16).ok());
    integer.map(Value::Int).or_else(|| text.parse().ok().map(Value::Float))
}
