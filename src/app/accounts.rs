//! Who acts on this machine, by the accounts it has.

use crate::store::Actor;

/// `local:<user>`, by the number of the account.
pub fn actor_of_user(uid: u32) -> Actor {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    // Directories of users that are no file (LDAP, macOS) are only known to the session.
    let of_session = || std::env::var("USER").ok().filter(|_| uid == rustix::process::getuid().as_raw());
    let name = user_named(&accounts, uid)
        .map(str::to_owned)
        .or_else(|| of_session().filter(|name| is_plain(name)))
        .unwrap_or_else(|| format!("uid-{uid}"));
    Actor::named(format!("local:{name}"))
}

fn is_plain(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
}

/// The name of the account with this number in the text of `/etc/passwd`.
fn user_named(accounts: &str, uid: u32) -> Option<&str> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name).filter(|name| is_plain(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_actor_is_the_account() {
        let accounts =
            "root:x:0:0:root:/root:/bin/bash\n# odd\nanna:x:1000:1000::/home/anna:/bin/zsh\nb c:x:7:7::/:/x\n";
        assert_eq!(user_named(accounts, 0), Some("root"));
        assert_eq!(user_named(accounts, 1000), Some("anna"));
        assert_eq!(user_named(accounts, 7), None);
        assert_eq!(user_named(accounts, 10), None);
        assert_eq!(actor_of_user(4_000_000_001).name, "local:uid-4000000001");
    }
}
