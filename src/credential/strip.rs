//! Taking the credential out of every accepted place, so that no upstream ever sees it.

use http::HeaderName;

use super::locate::{after_scheme, cookie_pieces, is_named, parameters, split_cookie};
use super::location::Place;
use crate::domain::Known;
use crate::domain::fields::Field;

/// What becomes of a field once the credential is taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stripped {
    /// It holds none.
    Unchanged,
    /// It holds nothing else.
    Removed,
    /// This is left of its value.
    Rewritten(Vec<u8>),
}

/// Takes the credentials of the accepted places out of one field. Values of schemes that are not accepted stay.
pub fn strip_field(field: &Field<'_>, accept: &[Place]) -> Stripped {
    let mut stripped = Stripped::Unchanged;
    for place in accept {
        match place {
            Place::Header { name, scheme } if field.name.eq_ignore_ascii_case(name.as_str().as_bytes()) => {
                let is_credential = scheme
                    .as_ref()
                    .is_none_or(|scheme| field.value.is_empty() || after_scheme(field.value, scheme).is_some());
                if is_credential {
                    return Stripped::Removed;
                }
            }
            Place::Cookie { name } if field.known == Known::Cookie => {
                let value = match &stripped {
                    Stripped::Rewritten(value) => value,
                    Stripped::Unchanged | Stripped::Removed => field.value,
                };
                if let Some(kept) = strip_cookie(value, name) {
                    if kept.is_empty() {
                        return Stripped::Removed;
                    }
                    stripped = Stripped::Rewritten(kept);
                }
            }
            Place::Pair { id, secret } => {
                let is = |name: &HeaderName| field.name.eq_ignore_ascii_case(name.as_str().as_bytes());
                if is(id) || is(secret) {
                    return Stripped::Removed;
                }
            }
            Place::Header { .. } | Place::Cookie { .. } | Place::Query { .. } => {}
        }
    }
    stripped
}

/// `query` without the accepted parameters; `None` when it holds none of them. The rest stays byte for byte.
pub fn strip_query(query: &str, accept: &[Place]) -> Option<String> {
    let is_credential = |parameter: &str| {
        accept.iter().any(|place| match place {
            Place::Query { name } => is_named(parameter, name),
            Place::Header { .. } | Place::Pair { .. } | Place::Cookie { .. } => false,
        })
    };
    parameters(query).any(is_credential).then(|| {
        let kept: Vec<&str> = query.split('&').filter(|piece| !is_credential(piece)).collect();
        kept.join("&")
    })
}

/// A cookie field's value without the cookie of this name; `None` when it holds none. The others stay as they are written:
/// of `=name=value`, which has no name, nothing else may become by writing it anew.
fn strip_cookie(value: &[u8], name: &str) -> Option<Vec<u8>> {
    let is_credential = |piece: &&[u8]| split_cookie(piece).0 == name.as_bytes();
    cookie_pieces(value).any(|piece| is_credential(&piece)).then(|| {
        let kept: Vec<&[u8]> =
            cookie_pieces(value).filter(|piece| !piece.is_empty() && !is_credential(piece)).collect();
        kept.join(&b"; "[..])
    })
}
