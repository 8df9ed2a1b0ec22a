//! The management API, and the pages that explain it.
//!
//! Owns the table of endpoints, the shape of requests and answers, and the OpenAPI document made from both. Must not know
//! how requests arrive, nor decide by itself who may do what. Start at `table`, then `api` and `endpoints`.

mod api;
mod call;
mod configuration;
mod door;
mod endpoints;
mod exchange;
mod fleet;
mod import;
mod lists;
mod making;
mod openapi;
mod operations;
mod profile;
mod query;
mod seal;
mod table;
mod turns;
mod usage;
mod usage_schema;
mod verify;

pub use api::{Api, ApiSettings, Foreseen, Sort};
pub use door::Entrance;
pub use exchange::{ApiAnswer, ApiRequest};
pub use import::MAX_IMPORT_BODY;
pub use operations::{Operations, ReloadReport};
pub use profile::ApiProfile;

/// The paths of all endpoints, with `{id}` for the one variable segment there may be.
pub fn endpoint_paths() -> impl Iterator<Item = &'static str> {
    table::TABLE.iter().map(|row| row.path)
}

/// The text that every page is cut from.
const ERRORS: &str = include_str!("../../docs/errors.md");

/// The documentation page at `path`, in Markdown: `/docs/errors`, and `/docs/errors/<code>` for each error code.
pub fn docs_page(path: &str) -> Option<&'static str> {
    match path {
        "/docs" | "/docs/" | "/docs/errors" | "/docs/errors/" => Some(ERRORS),
        _ => path.strip_prefix("/docs/errors/").and_then(section),
    }
}

/// The section of a code: from its heading to the next one of the same or a higher level.
fn section(code: &str) -> Option<&'static str> {
    let is_code = !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let heading = format!("\n## {code}\n");
    let start = is_code.then(|| ERRORS.find(&heading)).flatten()? + 1;
    let after = start + heading.len() - 1;
    let end = ERRORS[after..].find("\n## ").map_or(ERRORS.len(), |at| after + at + 1);
    Some(&ERRORS[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::every_refusal;

    #[test]
    fn every_code_that_a_client_can_see_has_a_page() {
        every_refusal(|refusal| {
            let code = refusal.facts().code;
            let page = docs_page(&format!("/docs/errors/{code}")).unwrap_or_else(|| panic!("{code} has no page"));
            assert!(page.starts_with(&format!("## {code}\n")) && page.len() > 80, "{code}: {page}");
            assert_eq!(page.matches("\n## ").count(), 0, "{code}");
        });
        for code in exchange::CODES {
            assert!(docs_page(&format!("/docs/errors/{code}")).is_some_and(|page| page.len() > 80), "{code}");
        }
        assert_eq!(docs_page("/docs/errors/nonsense"), None);
    }
}
