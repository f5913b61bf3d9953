//! What is wrong with a configuration: where, what, and what would be right.
use std::fmt;
use std::sync::Arc;

/// Where something was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// In a file; line and column count from 1, columns in characters.
    File {
        /// The file, as it was named to us.
        file: Arc<str>,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In a flag (`--listen`) or a variable of the environment (`POINTSMAN_PASSWORD`).
    Input(&'static str),
    /// The file as a whole: it cannot be read.
    Path(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Place::Input(name) => f.write_str(name),
            Place::Path(path) => f.write_str(path),
        }
    }
}

/// One thing that is wrong. Its text never holds the value of a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Error {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.remedy)
    }
}

impl std::error::Error for Error {}

/// Everything that was found wrong at once, in the order of the file; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Errors(Vec<Error>);

impl Errors {
    /// At most so many errors are reported: who has more wants the first ones anyway.
    const MAX: usize = 50;

    pub(crate) fn new(mut errors: Vec<Error>) -> Errors {
        assert!(!errors.is_empty(), "Errors are made where there is one");
        errors.sort();
        errors.dedup();
        errors.truncate(Errors::MAX);
        Errors(errors)
    }

    /// The errors, at least one.
    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.0.iter()
    }
}

impl From<Error> for Errors {
    fn from(error: Error) -> Errors {
        Errors(vec![error])
    }
}

/// A line for each error.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// `text` as it can be shown in one line: in quotes, escaped, and cut if it is long.
pub(crate) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 100;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The one of `names` that was most likely meant by `word`, if any is near enough.
pub(crate) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let far = (word.chars().count() / 3).clamp(1, 3);
    let of = |name: &'n str| (strsim::damerau_levenshtein(word, name), name);
    names.into_iter().map(of).filter(|(d, _)| *d <= far).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_is_recognised_and_another_word_is_not() {
        let names = ["listen", "lanes", "limits", "sentinels"];
        assert_eq!(nearest("lisetn", names), Some("listen"));
        assert_eq!(nearest("sentinel", names), Some("sentinels"));
        assert_eq!(nearest("timeout", names), None);
    }
}
