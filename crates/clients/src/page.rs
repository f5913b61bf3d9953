//! docs/reference/clients.md, whose table is what the runs have shown.
use crate::play::Library;
use std::fs;
use std::io;
use std::path::Path;

/// Set, the page is written anew instead of held against the runs.
const WRITE: &str = "POINTSMAN_WRITE_DOCS";
const PAGE: &str = "../../docs/reference/clients.md";
const HEAD: &str = "| library | what is the same |\n|---|---|\n";

/// Whether the page has a row for each of these libraries as it was run now. Says which it has not.
pub(crate) fn hold_against(libraries: &[Library]) -> io::Result<bool> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path)?;
    let rows: Vec<String> = libraries.iter().filter(|library| library.is_good()).map(row).collect();
    if std::env::var_os(WRITE).is_some() {
        let (before, _) = page.split_once(HEAD).ok_or_else(|| io::Error::other("the page has no table"))?;
        fs::write(&path, format!("{before}{HEAD}{}", rows.concat()))?;
        return Ok(true);
    }
    let missing: Vec<&String> = rows.iter().filter(|row| !page.contains(row.as_str())).collect();
    for row in &missing {
        println!(
            "docs/reference/clients.md has no such row; {WRITE}=1 make test-clients writes it: {}",
            row.trim()
        );
    }
    Ok(missing.is_empty())
}

fn row(library: &Library) -> String {
    let tests: Vec<&str> = library.tests.iter().map(|test| test.name.as_str()).collect();
    format!("| {} | {} |\n", library.title(), tests.join(", "))
}
