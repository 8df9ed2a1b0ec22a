use super::*;

fn parse(url: &str) -> Result<PostgresAddress, AddressFlaw> {
    PostgresAddress::parse(url, Path::new("/etc/portcullis"))
}

fn problem(url: &str) -> String {
    parse(url).expect_err(url).problem
}

#[test]
fn every_part_of_a_url_is_found() {
    let address =
        parse("postgres://pc:p%40ss%2F+word@db.example:6432/keys?sslmode=verify-full&sslrootcert=ca.pem").unwrap();
    assert_eq!(address.servers, [Server::Tcp("db.example".to_owned(), 6432)]);
    assert_eq!((address.user.as_str(), address.database.as_str()), ("pc", "keys"));
    assert_eq!(address.password.as_ref().unwrap().reveal(), "p@ss/+word");
    assert_eq!(address.encryption, Encryption::VerifyFull(Roots::File("/etc/portcullis/ca.pem".into())));
    assert!(!address.is_exposed());
}

#[test]
fn sockets_several_hosts_and_addresses_are_understood() {
    let socket = |url: &str| parse(url).unwrap().servers;
    let unix = [Server::Unix("/run/postgresql".into(), 5432)];
    assert_eq!(socket("postgresql://pc@%2Frun%2Fpostgresql/keys"), unix);
    assert_eq!(socket("postgres:///keys?host=/run/postgresql&user=pc"), unix);
    assert_eq!(socket("postgres://pc@[::1]:1/keys"), [Server::Tcp("::1".to_owned(), 1)]);
    let several = parse("postgres://pc@a:1,b/keys").unwrap();
    assert_eq!(several.servers, [Server::Tcp("a".to_owned(), 1), Server::Tcp("b".to_owned(), 5432)]);
    assert_eq!(several.demand, Demand::ReadWrite, "a standby takes no writes");
    assert_eq!(parse("postgres://pc@a,b/keys?target_session_attrs=any").unwrap().demand, Demand::Any);
}

#[test]
fn a_server_elsewhere_without_checked_tls_is_exposed() {
    for (url, exposed) in [
        ("postgres://pc@db.example/keys", true),
        ("postgres://pc@db.example/keys?sslmode=require", true),
        ("postgres://pc@db.example/keys?sslmode=verify-ca", false),
        ("postgres://pc@127.0.0.1/keys", false),
        ("postgres://pc@localhost,db.example/keys", true),
        ("postgres:///keys?host=/run/postgresql&user=pc", false),
    ] {
        assert_eq!(parse(url).unwrap().is_exposed(), exposed, "{url}");
    }
}

#[test]
fn what_is_shown_is_a_url_again_and_holds_no_password() {
    for url in [
        "postgres://pc:hunter2!@db.example:6432/keys?sslmode=verify-ca&sslrootcert=/ca.pem",
        "postgres://p%40c:hunter2!@%2Frun%2Fpostgresql/my%20keys",
        "postgres://pc:hunter2!@[::1]:1,b/keys?application_name=edge",
    ] {
        let address = parse(url).unwrap();
        let shown = address.show("<redacted>");
        assert!(!shown.contains("hunter2") && !format!("{address:?}").contains("hunter2"), "{shown}");
        let again = parse(&shown.replace("<redacted>", "hunter2!")).unwrap();
        assert_eq!(again, address, "{shown}");
    }
    assert_eq!(parse("postgres://pc@a/keys").unwrap().show("x"), "postgres://pc@a:5432/keys?sslmode=prefer");
}

#[test]
fn what_cannot_be_used_is_told_without_what_was_written() {
    for (url, expected) in [
        ("mysql://pc:hunter2@db/keys", "does not begin with postgres://"),
        ("postgres://pc:hunter2@db", "names no database"),
        ("postgres://db/keys", "names no user name"),
        ("postgres:///keys?user=pc", "names no host"),
        ("postgres://pc:hunter2@db/keys?sslmode=verify", "`sslmode` is none of"),
        ("postgres://pc:hunter2@db/keys?sslrootcert=ca.pem", "checks nothing"),
        ("postgres://pc:hunter2@db/keys?sslcert=a.pem", "`sslcert` is not supported"),
        ("postgres://pc:hunter2@db/keys?HUNTER2=1", "`…` is not supported"),
        ("postgres://pc:hunter2@db/keys?user=x", "`user` is given twice"),
        ("postgres://pc:hunter2@db/keys?sslmode=require&sslmode=disable", "`sslmode` is given twice"),
        ("postgres://pc:hun/ter2@db/keys", "the user name or the password holds a `/`"),
        ("postgres://pc:hun?ter2@db/keys", "the user name or the password holds a `/`"),
        ("postgres://pc:hun%ter2@db/keys", "the password holds a broken percent sign"),
        ("postgres://pc:hunter2#@db/keys", "holds a `#`"),
        ("postgres://pc@%2Frun/keys?sslmode=verify-full", "no TLS over a Unix socket"),
        ("postgres://pc:hunter2@db:0/keys", "what stands for the port is none"),
        ("postgres://pc@a,b,c,d,e,f,g,h,i/keys", "more than 8 hosts"),
    ] {
        let found = parse(url).expect_err(url);
        assert!(found.problem.contains(expected), "{url}: {found:?}");
        assert!(!format!("{found:?}").to_lowercase().contains("hunter2"), "{found:?}");
    }
    assert!(problem("postgres://pc@db/keys?options=-cx").contains("options"));
}
