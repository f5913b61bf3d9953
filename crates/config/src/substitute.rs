//! `${NAME}` and `${NAME:-default}` in values. It happens after the file was parsed, so what the environment holds is
//! never read as TOML, nor substituted again.

/// The variables of the environment, by name.
pub(crate) type Env<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// Replaces `${NAME}` by the variable, `${NAME:-default}` by the default if the variable is unset or empty, and `$$`
/// by `$`; a `$` before anything else stays. The error is what is wrong and what would be right; it holds no values.
pub(crate) fn substitute(text: &str, env: &Env<'_>) -> Result<String, (String, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let close = after.find('}').ok_or_else(|| {
                ("a \"${\" is not closed".into(), "write \"${NAME}\", or \"$${\" for a plain \"${\"".into())
            })?;
            out += &variable(&after[..close], env)?;
            rest = &after[close + 1..];
        } else {
            out.push('$');
        }
    }
    out += rest;
    Ok(out)
}

fn variable(reference: &str, env: &Env<'_>) -> Result<String, (String, String)> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        let problem = "what stands in \"${…}\" is not the name of a variable";
        return Err((problem.into(), "write \"${NAME}\" with letters, digits and \"_\"".into()));
    }
    if default.is_some_and(|d| d.contains('$')) {
        let problem = format!("the default of \"${{{name}:-…}}\" refers to another variable");
        return Err((problem, "write a plain default".into()));
    }
    match (env(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.into()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.into()),
        (None, None) => Err((
            format!("the environment variable {name} is not set"),
            format!("set it, or give a default: \"${{{name}:-…}}\""),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("10.0.0.1".into()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("a${HOST}$$b\"".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_defaults_are_put_in() {
        for (text, expected) in [
            ("plain", "plain"),
            ("${HOST}:6379", "10.0.0.1:6379"),
            ("${PORT:-6379}", "6379"),
            ("${HOST:-x}", "10.0.0.1"),
            ("[${EMPTY:-d}][${EMPTY}]", "[d][]"),
            ("pa$word, 5$", "pa$word, 5$"),
            ("$${HOST} $$$$", "${HOST} $$"),
            ("ü${HOST}ü", "ü10.0.0.1ü"),
        ] {
            assert_eq!(substitute(text, &env), Ok(expected.into()), "{text}");
        }
    }

    #[test]
    fn what_a_variable_holds_is_taken_as_it_is() {
        assert_eq!(substitute("${TRICKY}", &env), Ok("a${HOST}$$b\"".into()));
    }

    #[test]
    fn a_reference_to_nothing_says_so() {
        for (text, problem) in [
            ("${NOPE}", "the environment variable NOPE is not set"),
            ("${HOST", "a \"${\" is not closed"),
            ("${}", "what stands in \"${…}\" is not the name of a variable"),
            ("${1A}", "what stands in \"${…}\" is not the name of a variable"),
            ("${A:-${HOST}}", "the default of \"${A:-…}\" refers to another variable"),
        ] {
            assert_eq!(substitute(text, &env).map_err(|e| e.0), Err(problem.into()), "{text}");
        }
    }
}
