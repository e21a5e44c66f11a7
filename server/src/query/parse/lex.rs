//! A query's text as tokens, with the words of Prometheus for what is none. It knows brackets only as far as the meaning of
//! letters depends on them: between `[` and `]` stand durations, between `{` and `}` every word is a label.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The end of the text.
    End,
    /// Where no token begins; why is in [`Lexed::error`].
    Error,
    /// A word without a meaning of its own.
    Identifier,
    /// A word with a colon.
    Metric,
    /// A quoted string, with its quotes.
    Text,
    Number,
    Duration,
    /// `by`, `offset` and their kin, in any case.
    Keyword,
    /// `sum` and its kin, in any case.
    Aggregator,
    /// Signs and words between operands, and those between a label and its value; not `=`.
    Operator,
    /// Brackets, comma, colon and `=`.
    Sign,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// Offset in bytes.
    pub(super) at: usize,
}

impl Token<'_> {
    /// Whether it is this sign, operator or keyword. Words are compared in any case.
    pub(super) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Sign | Kind::Operator | Kind::Keyword) && self.text.eq_ignore_ascii_case(text)
    }

    /// Whether it is a word, whatever it means.
    pub(super) fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
            && !matches!(self.kind, Kind::Number | Kind::Text | Kind::Sign)
    }

    /// As Prometheus names it in errors.
    pub(super) fn described(&self) -> String {
        let text = self.text;
        match self.kind {
            Kind::End => "end of input".to_owned(),
            Kind::Error => "error".to_owned(),
            Kind::Identifier => format!("identifier {text:?}"),
            Kind::Metric => format!("metric identifier {text:?}"),
            Kind::Text => format!("string {}", shortened(text)),
            Kind::Number => format!("number {}", shortened(text)),
            Kind::Duration => format!("duration {}", shortened(text)),
            Kind::Keyword => format!("<{text}>"),
            Kind::Aggregator => format!("<aggr:{text}>"),
            Kind::Operator => format!("<op:{text}>"),
            Kind::Sign => format!("{text:?}"),
        }
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() > 10 {
        format!("{:?}...", text.chars().take(10).collect::<String>())
    } else {
        format!("{text:?}")
    }
}

/// The tokens of a text. The last is an [`Kind::End`] or, with a reason, an [`Kind::Error`].
pub(super) struct Lexed<'a> {
    pub(super) tokens: Vec<Token<'a>>,
    pub(super) error: Option<String>,
}

/// Cuts a text into tokens. O(n).
pub(super) fn lex(text: &str) -> Lexed<'_> {
    let mut lexer = Lexer { text, at: 0, start: 0, parens: 0, brace: false, bracket: false, tokens: Vec::new() };
    let error = lexer.run().err();
    if error.is_some() {
        lexer.tokens.push(Token { kind: Kind::Error, text: "", at: lexer.start });
    }
    Lexed { tokens: lexer.tokens, error }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Where the token at work begins.
    start: usize,
    parens: usize,
    brace: bool,
    bracket: bool,
    tokens: Vec<Token<'a>>,
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), String> {
        loop {
            self.skip_space();
            self.start = self.at;
            let Some(c) = self.peek() else {
                return self.end();
            };
            match c {
                '"' | '\'' => self.quoted(c)?,
                '`' => self.raw()?,
                _ if self.brace => self.in_braces(c)?,
                '0'..='9' => self.number()?,
                '.' if self.text[self.at + 1..].starts_with(|c: char| c.is_ascii_digit()) => self.number()?,
                'a'..='z' | 'A'..='Z' | '_' if self.bracket => self.duration_word(c)?,
                ':' if self.bracket => self.sign(1),
                'a'..='z' | 'A'..='Z' | '_' | ':' => self.word(),
                _ => self.punctuation(c)?,
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn emit(&mut self, kind: Kind) {
        self.tokens.push(Token { kind, text: &self.text[self.start..self.at], at: self.start });
    }

    fn sign(&mut self, bytes: usize) {
        self.at += bytes;
        self.emit(Kind::Sign);
    }

    fn operator(&mut self, bytes: usize) {
        self.at += bytes;
        self.emit(Kind::Operator);
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&keep) {
            self.at += self.peek().map_or(0, char::len_utf8);
        }
    }

    fn skip_space(&mut self) {
        self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
        while self.peek() == Some('#') {
            self.take_while(|c| c != '\n' && c != '\r');
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
        }
    }

    fn end(&mut self) -> Result<(), String> {
        let after_literal = self.tokens.last().is_some_and(|token| matches!(token.kind, Kind::Number | Kind::Duration));
        if self.brace {
            Err("unexpected end of input inside braces".to_owned())
        } else if self.bracket && !after_literal {
            Err("unexpected end of input in duration expression".to_owned())
        } else if self.parens > 0 {
            Err("unclosed left parenthesis".to_owned())
        } else if self.bracket {
            Err("unclosed left bracket".to_owned())
        } else {
            self.emit(Kind::End);
            Ok(())
        }
    }

    fn punctuation(&mut self, c: char) -> Result<(), String> {
        let next = self.text[self.at..].chars().nth(1);
        match (c, next) {
            ('=' | '!' | '<' | '>', Some('=')) => self.operator(2),
            ('=', Some('~')) => return Err("unexpected character after '=': '~'".to_owned()),
            ('!', next) => return Err(format!("unexpected character after '!': {}", rune(next))),
            ('+' | '-' | '*' | '/' | '%' | '^' | '<' | '>' | '@', _) => self.operator(1),
            ('=' | ',', _) => self.sign(1),
            ('(', _) => {
                self.parens += 1;
                self.sign(1);
            }
            (')', _) => {
                self.parens =
                    self.parens.checked_sub(1).ok_or_else(|| "unexpected right parenthesis ')'".to_owned())?;
                self.sign(1);
            }
            ('{', _) if !self.bracket => {
                self.brace = true;
                self.sign(1);
            }
            ('[', _) if self.bracket => return Err("unexpected left bracket '['".to_owned()),
            ('[', _) => {
                self.bracket = true;
                self.sign(1);
            }
            (']', _) if !self.bracket => return Err("unexpected right bracket ']'".to_owned()),
            (']', _) => {
                self.bracket = false;
                self.sign(1);
            }
            _ if self.bracket => return Err(format!("unexpected character in duration expression: {c:?}")),
            _ => return Err(format!("unexpected character: {c:?}")),
        }
        Ok(())
    }

    fn in_braces(&mut self, c: char) -> Result<(), String> {
        let next = self.text[self.at..].chars().nth(1);
        match (c, next) {
            ('a'..='z' | 'A'..='Z' | '_', _) => {
                self.take_while(is_word);
                self.emit(Kind::Identifier);
            }
            ('=' | '!', Some('~')) | ('!', Some('=')) => self.operator(2),
            ('=' | ',', _) => self.sign(1),
            ('!', next) => return Err(format!("unexpected character after '!' inside braces: {}", rune(next))),
            ('{', _) => return Err("unexpected left brace '{'".to_owned()),
            ('}', _) => {
                self.brace = false;
                self.sign(1);
            }
            _ => return Err(format!("unexpected character inside braces: {c:?}")),
        }
        Ok(())
    }

    fn word(&mut self) {
        self.take_while(|c| is_word(c) || c == ':');
        let word = self.text[self.start..self.at].to_ascii_lowercase();
        self.emit(match word.as_str() {
            "inf" | "nan" => Kind::Number,
            "and" | "or" | "unless" | "atan2" => Kind::Operator,
            "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" | "bool" | "offset" | "anchored"
            | "smoothed" | "fill" | "fill_left" | "fill_right" => Kind::Keyword,
            word if super::expr::aggregator(word).is_some() => Kind::Aggregator,
            word if word.contains(':') => Kind::Metric,
            _ => Kind::Identifier,
        });
    }

    /// Within a range only the words of duration expressions.
    fn duration_word(&mut self, first: char) -> Result<(), String> {
        self.take_while(|c| c.is_ascii_alphabetic() || c == '_');
        let word = self.text[self.start..self.at].to_ascii_lowercase();
        if !matches!(word.as_str(), "step" | "range" | "min" | "max" | "min_of" | "max_of") {
            return Err(format!("unexpected character in duration expression: {first:?}"));
        }
        self.emit(Kind::Identifier);
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        let bytes = self.text.as_bytes();
        if let Some(end) = scan_number(bytes, self.at) {
            self.at = end;
            self.emit(Kind::Number);
            return Ok(());
        }
        self.take_while(|c| c.is_ascii_digit());
        while self.peek().is_some_and(|c| matches!(c, 's' | 'm' | 'h' | 'd' | 'w' | 'y')) {
            self.at += 1;
            self.at += usize::from(self.peek() == Some('s'));
            self.take_while(|c| c.is_ascii_digit());
        }
        let ends_in_unit = bytes[self.start..self.at].last().is_some_and(u8::is_ascii_alphabetic);
        if !ends_in_unit || self.peek().is_some_and(is_word) {
            self.take_while(|c| is_word(c) || c == '.');
            return Err(format!("bad number or duration syntax: {:?}", &self.text[self.start..self.at]));
        }
        self.emit(Kind::Duration);
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek() {
                None | Some('\n') => return Err("unterminated quoted string".to_owned()),
                Some('\\') => self.escape(quote)?,
                Some(c) => {
                    self.at += c.len_utf8();
                    if c == quote {
                        self.emit(Kind::Text);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Skips an escape sequence that [`super::literal::unquote`] can read.
    fn escape(&mut self, quote: char) -> Result<(), String> {
        self.at += 1;
        let Some(c) = self.peek() else {
            return Err("escape sequence not terminated".to_owned());
        };
        let (digits, base) = match c {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => (1, 36),
            _ if c == quote => (1, 0),
            '0'..='7' => (3, 8),
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            _ => return Err(format!("unknown escape sequence U+{:04X} {c:?}", u32::from(c))),
        };
        if matches!(base, 0 | 36) {
            self.at += 1;
            return Ok(());
        }
        self.at += usize::from(base == 16);
        let from = self.at;
        for _ in 0..digits {
            match self.peek() {
                None => return Err("escape sequence not terminated".to_owned()),
                Some(c) if c.is_digit(base) => self.at += 1,
                Some(c) => {
                    return Err(format!("illegal character U+{:04X} {c:?} in escape sequence", u32::from(c)));
                }
            }
        }
        let value = u32::from_str_radix(&self.text[from..self.at], base).unwrap_or(u32::MAX);
        let fits = if digits < 4 { value <= 255 } else { char::from_u32(value).is_some() };
        if fits { Ok(()) } else { Err("escape sequence is an invalid Unicode code point".to_owned()) }
    }

    fn raw(&mut self) -> Result<(), String> {
        self.at += 1;
        self.take_while(|c| c != '`');
        if self.peek().is_none() {
            return Err("unterminated raw string".to_owned());
        }
        self.at += 1;
        self.emit(Kind::Text);
        Ok(())
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn rune(c: Option<char>) -> String {
    c.map_or_else(|| "end of input".to_owned(), |c| format!("{c:?}"))
}

/// Where the number that begins at `at` ends: digits with a dot, an exponent and underscores between, or hexadecimal.
/// `None` where it is none, or goes on as a word.
fn scan_number(bytes: &[u8], mut at: usize) -> Option<usize> {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let hexadecimal = byte(at) == b'0' && matches!(byte(at + 1), b'x' | b'X');
    if hexadecimal {
        at += 2;
    }
    let is_digit = |b: u8| if hexadecimal { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
    let (mut dot, mut exponent) = (false, false);
    loop {
        let b = byte(at);
        if is_digit(b) {
            at += 1;
        } else if b == b'_' {
            if !is_digit(byte(at + 1)) {
                return None;
            }
            at += 1;
        } else if b == b'.' {
            if dot || hexadecimal || matches!(byte(at + 1), b'_' | b'.') {
                return None;
            }
            dot = true;
            at += 1;
        } else if matches!(b, b'e' | b'E') {
            at += if matches!(byte(at + 1), b'+' | b'-') { 2 } else { 1 };
            if exponent || !byte(at).is_ascii_digit() {
                return None;
            }
            exponent = true;
        } else {
            break;
        }
    }
    (!byte(at).is_ascii_alphanumeric() && byte(at) != b'_').then_some(at)
}
