//! Whether a caller may: what a rule demands held against what was granted.
//!
//! Owns [`Authorized`], which only this room can make. Must not know who the caller is or how that was proven.

use crate::domain::ScopeSet;
use crate::route::Access;

/// Proof that a rule's demand was met. Consumed by the gate.
#[derive(Debug)]
#[must_use = "a proof that nobody consumes admits nobody"]
pub struct Authorized(());

/// What a caller brings to a demand.
#[derive(Clone, Copy, Debug)]
pub enum Holding<'a> {
    /// No proven identity.
    Nobody,
    /// A valid key that holds these scopes.
    Key(&'a ScopeSet),
}

/// What stands between a caller and a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lacking {
    /// A valid key.
    Key,
    /// These scopes; of an `any` demand, every alternative.
    Scopes(ScopeSet),
}

/// Decides one demand. Allocates only when more than 128 scopes exist.
///
/// # Errors
/// What is lacking.
pub fn decide(access: &Access, holding: Holding<'_>) -> Result<Authorized, Lacking> {
    match (access, holding) {
        (Access::Public, Holding::Nobody | Holding::Key(_)) | (Access::AnyKey, Holding::Key(_)) => Ok(Authorized(())),
        (Access::AnyKey | Access::Scopes { .. }, Holding::Nobody) => Err(Lacking::Key),
        (Access::Scopes { all, any }, Holding::Key(held)) => {
            let any_met = any.is_empty() || any.intersects(held);
            if held.contains_all(all) && any_met {
                return Ok(Authorized(()));
            }
            let missing_all = all.minus(held);
            Err(Lacking::Scopes(if any_met { missing_all } else { missing_all.union(any) }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[usize]) -> ScopeSet {
        let mut set = ScopeSet::default();
        numbers.iter().for_each(|number| set.insert(*number));
        set
    }

    #[test]
    fn all_and_any_must_both_be_met() {
        let access = Access::Scopes { all: set(&[0, 200]), any: set(&[1, 2]) };
        let cases: &[(&[usize], Option<&[usize]>)] = &[
            (&[0, 200, 1], None),
            (&[0, 200, 2, 7], None),
            (&[0, 200], Some(&[1, 2])),
            (&[0, 1], Some(&[200])),
            (&[], Some(&[0, 200, 1, 2])),
        ];
        for (held, missing) in cases {
            let decision = decide(&access, Holding::Key(&set(held)));
            match missing {
                None => assert!(decision.is_ok(), "{held:?}"),
                Some(missing) => {
                    let Err(Lacking::Scopes(lacking)) = decision else { panic!("{held:?} was let in") };
                    assert!(lacking.contains_all(&set(missing)) && set(missing).contains_all(&lacking), "{held:?}");
                }
            }
        }
    }

    #[test]
    fn nobody_passes_public_rules_alone() {
        assert!(decide(&Access::Public, Holding::Nobody).is_ok());
        assert!(matches!(decide(&Access::AnyKey, Holding::Nobody), Err(Lacking::Key)));
        let scoped = Access::Scopes { all: set(&[0]), any: set(&[]) };
        assert!(matches!(decide(&scoped, Holding::Nobody), Err(Lacking::Key)));
        assert!(decide(&Access::AnyKey, Holding::Key(&set(&[]))).is_ok());
    }
}
