//! Typed values out of the parsed file, by the table of [`keys`](crate::keys). Whatever is wrong is noted, and reading
//! goes on, so that one run finds every mistake.
use crate::error::{Error, Errors, Place, nearest, quoted};
use crate::keys::{self, Key, Kind, Section};
use crate::substitute::{Env, substitute};
use crate::units::{parse_duration, parse_size};
use std::borrow::Cow;
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Where a value stands: an offset in the text, or the flag or variable that it came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spot {
    At(usize),
    Input(&'static str),
}

/// A value, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) spot: Spot,
}

/// What reading one file needs, and what was found wrong so far.
pub(crate) struct Reader<'a> {
    file: Arc<str>,
    text: &'a str,
    env: &'a Env<'a>,
    /// What the paths in the file are relative to.
    pub(crate) folder: PathBuf,
    errors: RefCell<Vec<Error>>,
}

/// Most errors that are noted: finding the place of each reads the file up to it.
const NOTED_MAX: usize = 200;

/// The place of `offset` in `text`.
pub(crate) fn place(file: &Arc<str>, text: &[u8], offset: usize) -> Place {
    let before = &text[..offset.min(text.len())];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    Place::File { file: file.clone(), line, column }
}

/// Marks what was not written in the file but given by a flag or the environment.
const INPUT: usize = usize::MAX;

/// A key or a value that was given by a flag or the environment.
fn given<T>(value: T) -> Spanned<T> {
    Spanned::new(INPUT..INPUT, value)
}

/// Puts a value that was given by a flag or the environment into `table`, over what the file says.
pub(crate) fn give(table: &mut DeTable<'_>, name: &'static str, value: String) {
    // Removed first, because an insertion would keep the place of the old key.
    table.remove(name);
    table.insert(given(DeString::Borrowed(name)), given(DeValue::String(Cow::Owned(value))));
}

/// As [`give`], into the table `section` of `root`.
pub(crate) fn give_in(root: &mut DeTable<'_>, section: &'static str, name: &'static str, value: String) {
    if !root.contains_key(section) {
        root.insert(given(DeString::Borrowed(section)), given(DeValue::Table(DeTable::new())));
    }
    // What the file has under that name may be no table; then reading it is an error anyway.
    if let Some(DeValue::Table(table)) = root.get_mut(section).map(Spanned::get_mut) {
        give(table, name, value);
    }
}

/// Puts one service that is made of flags into `root`.
pub(crate) fn give_service<'t>(root: &mut DeTable<'t>, service: DeTable<'t>) {
    let mut services = toml::de::DeArray::new();
    services.push(given(DeValue::Table(service)));
    root.insert(given(DeString::Borrowed("service")), given(DeValue::Array(services)));
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &str, text: &'a str, env: &'a Env<'a>, folder: PathBuf) -> Reader<'a> {
        Reader { file: file.into(), text, env, folder, errors: RefCell::default() }
    }

    /// The file as TOML; as many syntax errors as can be found, one a line.
    pub(crate) fn parse(&self) -> Result<DeTable<'a>, Errors> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let mut last_line = 0;
        for error in errors.into_iter().take(NOTED_MAX) {
            let place = place(&self.file, self.text.as_bytes(), error.span().map_or(0, |s| s.start));
            // What follows on the same line follows from it.
            if let Place::File { line, .. } = place {
                if line == std::mem::replace(&mut last_line, line) {
                    continue;
                }
            }
            let (problem, remedy) = match error.message().split_once(", expected ") {
                Some((problem, "nothing")) => (problem, "remove it".into()),
                Some((problem, expected)) => (problem, format!("write {expected}")),
                None if error.message() == "duplicate key" => ("duplicate key", "keep one of the two".into()),
                None => (error.message(), "see https://toml.io for how TOML is written".into()),
            };
            self.errors.borrow_mut().push(Error { place, problem: problem.into(), remedy });
        }
        self.finish(table.into_inner())
    }

    /// `value`, if nothing was found wrong; else all that was.
    pub(crate) fn finish<T>(&self, value: T) -> Result<T, Errors> {
        match self.errors.take() {
            errors if errors.is_empty() => Ok(value),
            errors => Err(Errors::new(errors)),
        }
    }

    /// Notes an error.
    pub(crate) fn wrong(&self, spot: Spot, problem: impl Into<String>, remedy: impl Into<String>) {
        if self.errors.borrow().len() >= NOTED_MAX {
            return;
        }
        let place = match spot {
            Spot::At(offset) => place(&self.file, self.text.as_bytes(), offset),
            Spot::Input(name) => Place::Input(name),
        };
        self.errors.borrow_mut().push(Error { place, problem: problem.into(), remedy: remedy.into() });
    }
}

/// One table of the file, read as a section.
pub(crate) struct Table<'r> {
    pub(crate) reader: &'r Reader<'r>,
    section: Section,
    values: &'r DeTable<'r>,
    /// Where its header stands; `None` if it was made of flags.
    start: Option<usize>,
}

impl<'r> Table<'r> {
    /// Reads `values` as `section`. Keys that do not exist are noted as errors.
    pub(crate) fn new(
        reader: &'r Reader<'r>,
        section: Section,
        values: &'r DeTable<'r>,
        start: usize,
    ) -> Table<'r> {
        let table = Table { reader, section, values, start: Some(start).filter(|s| *s != INPUT) };
        for key in values.keys() {
            let name: &str = key.get_ref();
            let is_section = Section::ALL.iter().any(|s| s.parent() == Some(section) && s.name() == name);
            if !is_section && keys::find(section, name).is_none() {
                table.unknown(name, key.span().start);
            }
        }
        table
    }

    /// The tables of `section` in this one.
    pub(crate) fn tables(&self, section: Section) -> Vec<Table<'r>> {
        let Some(value) = self.values.get(section.name()) else { return Vec::new() };
        let start = value.span().start;
        match value.get_ref() {
            DeValue::Table(values) if !section.repeats() => {
                vec![Table::new(self.reader, section, values, start)]
            }
            DeValue::Array(array) if section.repeats() => {
                array.iter().filter_map(|element| self.element(section, element)).collect()
            }
            other => {
                self.wrong_section(section, start, other);
                Vec::new()
            }
        }
    }

    fn element(&self, section: Section, element: &'r Spanned<DeValue<'r>>) -> Option<Table<'r>> {
        let start = element.span().start;
        match element.get_ref() {
            DeValue::Table(values) => Some(Table::new(self.reader, section, values, start)),
            other => {
                self.wrong_section(section, start, other);
                None
            }
        }
    }

    fn wrong_section(&self, section: Section, start: usize, value: &DeValue<'_>) {
        let problem = format!("`{}` is {}", section.name(), described(value));
        self.reader.wrong(Spot::At(start), problem, format!("write {}", section.header()));
    }

    fn unknown(&self, name: &str, offset: usize) {
        let mut names: Vec<&str> = self.section.keys().map(|key| key.name).collect();
        names.extend(Section::ALL.iter().filter(|s| s.parent() == Some(self.section)).map(|s| s.name()));
        let elsewhere = Section::ALL.into_iter().find(|s| keys::find(*s, name).is_some());
        let within = match self.section {
            Section::Process => "at the top of the file".into(),
            section => format!("in {}", section.header()),
        };
        let remedy = match (nearest(name, names.iter().copied()), elsewhere) {
            (_, Some(Section::Process)) => "it belongs at the top of the file".into(),
            (_, Some(section)) => format!("it belongs in {}", section.header()),
            (Some(meant), None) => format!("did you mean `{meant}`?"),
            (None, None) => format!("there are {}", names.join(", ")),
        };
        self.reader.wrong(Spot::At(offset), format!("unknown key {} {within}", quoted(name)), remedy);
    }

    /// Where the table begins, for what is missing in it; what is missing among flags is missed by its flag.
    fn start_for(&self, name: &str) -> Spot {
        self.start.map_or_else(|| Spot::Input(self.key(name).input), Spot::At)
    }

    /// Where a key or a section stands, or the table's start if it is not written.
    pub(crate) fn spot(&self, name: &str) -> Spot {
        match self.values.get_key_value(name).map(|(key, _)| key.span().start) {
            Some(INPUT) => Spot::Input(self.key(name).input),
            Some(offset) => Spot::At(offset),
            None => self.start_for(name),
        }
    }

    /// Whether something of that name is written.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// How to say a key to who can write it here: in a file by its name, without one by its flag or variable.
    pub(crate) fn said(&self, name: &str) -> String {
        let input = keys::find(self.section, name).map_or("", |key| key.input);
        let name = if self.start.is_none() && !input.is_empty() { input } else { name };
        format!("`{name}`")
    }

    /// Whether it was made of flags.
    pub(crate) fn is_flags(&self) -> bool {
        self.start.is_none()
    }

    /// Notes that a required key is missing.
    pub(crate) fn missing(&self, name: &str) {
        let key = self.key(name);
        let remedy = format!("add {} = {}", key.name, key.example);
        let (problem, remedy) = match self.start {
            Some(_) => (format!("{} has no `{name}`", self.section.header()), remedy),
            None => ("is missing".into(), "give it, or a file with `--config`".into()),
        };
        self.reader.wrong(self.start_for(name), problem, remedy);
    }

    /// A string.
    pub(crate) fn text(&self, name: &str) -> Option<Placed<String>> {
        let (key, spot, value) = self.get(name)?;
        let value = self.string(key, spot, value)?;
        Some(Placed { value, spot })
    }

    /// A list of strings; `None` if it is not written or no list. An empty one is a mistake unless it is the default.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<Placed<String>>> {
        let (key, spot, value) = self.get(name)?;
        let written: Vec<_> = match value {
            DeValue::Array(array) => array.iter().map(|v| (Spot::At(v.span().start), v.get_ref())).collect(),
            value => vec![(spot, value)],
        };
        let read: Vec<_> =
            written.into_iter().map(|(spot, v)| Some((self.string(key, spot, v)?, spot))).collect();
        let list: Vec<_> = read.iter().flatten().flat_map(|(text, spot)| split(text, *spot)).collect();
        if list.is_empty() && read.iter().all(Option::is_some) && key.default != Some("[]") {
            self.reader.wrong(spot, format!("`{}` is empty", key.path()), key.remedy());
            return None;
        }
        Some(list)
    }

    /// A table of strings: the keys and the values; `None` if it is not written or no such table.
    pub(crate) fn names(&self, name: &str) -> Option<Vec<(Placed<String>, Placed<String>)>> {
        let (key, spot, value) = self.get(name)?;
        let DeValue::Table(names) = value else {
            return self.bad(key, spot, &format!("is {}", described(value)));
        };
        let placed = |(name, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
            let (name_at, value_at) = (Spot::At(name.span().start), Spot::At(value.span().start));
            let value = Placed { value: self.string(key, value_at, value.get_ref())?, spot: value_at };
            Some((Placed { value: name.get_ref().to_string(), spot: name_at }, value))
        };
        let placed: Vec<_> = names.iter().filter_map(placed).collect();
        Some(placed)
    }

    /// One of the key's words.
    pub(crate) fn word(&self, name: &str) -> Option<&'static str> {
        let (key, spot, value) = self.get(name)?;
        let Kind::Word(words) = key.kind else { unreachable!("`{name}` is a word") };
        let text = self.string(key, spot, value)?;
        let found = words.iter().find(|word| **word == text);
        if found.is_none() {
            let remedy = match nearest(&text, words.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => key.remedy(),
            };
            self.reader.wrong(spot, format!("`{}` cannot be {}", key.path(), quoted(&text)), remedy);
        }
        found.copied()
    }

    /// Sets `into` if the key is written.
    pub(crate) fn flag(&self, name: &str, into: &mut bool) {
        let Some((key, spot, value)) = self.get(name) else { return };
        let read = match value {
            DeValue::Boolean(value) => Some(*value),
            DeValue::String(text) if is_dynamic(text, spot) => {
                self.string(key, spot, value).and_then(|text| match text.as_str() {
                    "true" => Some(true),
                    "false" => Some(false),
                    other => self.bad(key, spot, &format!("is {}", quoted(other))),
                })
            }
            other => self.bad(key, spot, &format!("is {}", described(other))),
        };
        *into = read.unwrap_or(*into);
    }

    /// Sets `into` if the key is written: a count or a size.
    pub(crate) fn number<T: TryFrom<u64>>(&self, name: &str, into: &mut T) {
        let Some((key, spot, value)) = self.get(name) else { return };
        let (Kind::Count(min, max) | Kind::Size(min, max)) = key.kind else {
            unreachable!("`{name}` is a number")
        };
        let Some(n) = self.integer(key, spot, value) else { return };
        let in_range = u64::try_from(n).ok().filter(|n| (min..=max).contains(n));
        match in_range.and_then(|n| T::try_from(n).ok()) {
            Some(n) => *into = n,
            None => drop(self.bad::<()>(key, spot, &format!("is {n}, out of range"))),
        }
    }

    /// Sets `into` if the key is written.
    pub(crate) fn duration(&self, name: &str, into: &mut Duration) {
        let Some((key, spot, value)) = self.get(name) else { return };
        if let Some(text) = self.string(key, spot, value) {
            *into = self.in_range(key, spot, &text).unwrap_or(*into);
        }
    }

    /// Sets `into` if the key is written: `None` for the key's word.
    pub(crate) fn duration_or(&self, name: &str, into: &mut Option<Duration>) {
        let Some((key, spot, value)) = self.get(name) else { return };
        let Kind::DurationOr(word, ..) = key.kind else { unreachable!("`{name}` has a word") };
        match self.string(key, spot, value) {
            Some(text) if text == word => *into = None,
            Some(text) => *into = self.in_range(key, spot, &text).or(*into),
            None => {}
        }
    }

    fn in_range(&self, key: &'static Key, spot: Spot, text: &str) -> Option<Duration> {
        let (Kind::Duration(min, max) | Kind::DurationOr(_, min, max)) = key.kind else {
            unreachable!("`{}` is a duration", key.name)
        };
        match parse_duration(text) {
            Err(why) => self.bad(key, spot, &format!("= {} {why}", quoted(text))),
            Ok(d) if d < Duration::from_millis(min) || d > Duration::from_millis(max) => {
                self.bad(key, spot, &format!("is {}, out of range", quoted(text)))
            }
            Ok(d) => Some(d),
        }
    }

    fn integer(&self, key: &'static Key, spot: Spot, value: &DeValue<'_>) -> Option<i128> {
        match value {
            DeValue::Integer(n) => match i128::from_str_radix(n.as_str(), n.radix()) {
                Ok(n) => Some(n),
                Err(_) => self.bad(key, spot, "is too large"),
            },
            DeValue::String(text) if matches!(key.kind, Kind::Size(..)) || is_dynamic(text, spot) => {
                let text = self.string(key, spot, value)?;
                let n = match key.kind {
                    Kind::Size(..) => parse_size(&text),
                    _ => text.trim().parse().map_err(|_| "is not a whole number".into()),
                };
                match n {
                    Ok(n) => Some(i128::from(n)),
                    Err(why) => self.bad(key, spot, &format!("= {} {why}", quoted(&text))),
                }
            }
            other => self.bad(key, spot, &format!("is {}", described(other))),
        }
    }

    /// A string, with what it takes from the environment.
    fn string(&self, key: &'static Key, spot: Spot, value: &DeValue<'_>) -> Option<String> {
        match (value, spot) {
            (DeValue::String(text), Spot::Input(_)) => Some(text.to_string()),
            (DeValue::String(text), _) => match substitute(text, self.reader.env) {
                Ok(text) => Some(text),
                Err((problem, remedy)) => {
                    self.reader.wrong(spot, format!("`{}`: {problem}", key.path()), remedy);
                    None
                }
            },
            (other, _) => self.bad(key, spot, &format!("is {}", described(other))),
        }
    }

    fn bad<T>(&self, key: &'static Key, spot: Spot, problem: &str) -> Option<T> {
        self.reader.wrong(spot, format!("`{}` {problem}", key.path()), key.remedy());
        None
    }

    fn get(&self, name: &str) -> Option<(&'static Key, Spot, &'r DeValue<'r>)> {
        let key = self.key(name);
        let value = self.values.get(name)?;
        let start = value.span().start;
        let spot = if start == INPUT { Spot::Input(key.input) } else { Spot::At(start) };
        Some((key, spot, value.get_ref()))
    }

    fn key(&self, name: &str) -> &'static Key {
        keys::find(self.section, name).expect("the code asks only for keys of the table")
    }
}

/// Whether a string stands for what has no quotes otherwise, because it comes from the environment or a flag.
fn is_dynamic(text: &str, spot: Spot) -> bool {
    text.contains("${") || matches!(spot, Spot::Input(_))
}

fn split(text: &str, spot: Spot) -> impl Iterator<Item = Placed<String>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(move |part| Placed { value: part.into(), spot })
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
