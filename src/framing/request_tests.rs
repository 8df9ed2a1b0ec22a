//! Hostile and honest requests, one claim a row, cut in every usual way.

use super::reading::{Verdict, read_requests, usual_cuts};
use super::{Fault, RequestLimits};

use Verdict::{AwaitsUpgrade, Broken, Passes, Refused};

type Row = (&'static str, Vec<u8>, Verdict);

/// The verdict of every way of cutting, which must be one; and only whole messages passed.
fn judge(claim: &str, bytes: &[u8], limits: RequestLimits) -> (Vec<u8>, Verdict) {
    let whole = read_requests([bytes.to_vec()], 64 * 1024, limits);
    for pieces in usual_cuts(bytes) {
        for room in [7, 64 * 1024] {
            let outcome = read_requests(pieces.clone(), room, limits);
            assert_eq!(outcome, whole, "{claim}: cut into {} pieces, read into {room} bytes", pieces.len());
        }
    }
    assert!(bytes.starts_with(&whole.passed), "{claim}: bytes were changed");
    (whole.passed, whole.verdict)
}

fn check(rows: Vec<Row>) {
    for (claim, bytes, expected) in rows {
        let (passed, verdict) = judge(claim, &bytes, RequestLimits::default());
        assert_eq!(verdict, expected, "{claim}");
        match verdict {
            Refused(_) => assert!(passed.is_empty(), "{claim}: {} bytes passed", passed.len()),
            Passes | AwaitsUpgrade => assert_eq!(passed, bytes, "{claim}"),
            Broken(_) => {}
        }
    }
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n").into_bytes()
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n{body}").into_bytes()
}

fn raw(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

#[test]
fn ordinary_requests_pass_untouched() {
    check(vec![
        ("a GET", get(""), Passes),
        ("HTTP/1.0 needs no Host", raw("GET / HTTP/1.0\r\n\r\n"), Passes),
        ("one empty line before a request", raw("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Passes),
        ("a body of known length", post("Content-Length: 5\r\n", "hello"), Passes),
        ("no body at all", post("Content-Length: 0\r\n", ""), Passes),
        ("white space around a length", post("Content-Length: \t5 \r\n", "hello"), Passes),
        ("chunks", chunked("5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n"), Passes),
        ("CHUNKED in capitals", post("transfer-encoding: CHUNKED\r\n", "0\r\n\r\n"), Passes),
        ("chunk extensions", chunked("5;a=b;c=\"d e\"\r\nhello\r\n0;last\r\n\r\n"), Passes),
        ("trailers", chunked("1\r\nx\r\n0\r\nGrpc-Status: 0\r\nX-Empty:\r\n\r\n"), Passes),
        ("a chunk that looks like a request", chunked("12\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"), Passes),
        ("bytes above ASCII in a value", [get("")[..34].to_vec(), b"X: \xff\x80\r\n\r\n".to_vec()].concat(), Passes),
        ("tabs in a value", get("X:\ta\tb\t\r\n"), Passes),
        ("an empty value", get("X:\r\n"), Passes),
        ("two requests in one piece", [get(""), post("Content-Length: 1\r\n", "x"), get("")].concat(), Passes),
        ("a method nobody knows", raw("brew+tea /pot HTTP/1.1\r\nHost: a\r\n\r\n"), Passes),
        (
            "every byte that http::Uri leaves alone",
            raw("GET /!$&'()*+,;=:@-._~%7C|^[]{}\"\\?a=`{}|\\^[]?/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            Passes,
        ),
        ("absolute form", raw("GET http://a.example:80/x?y HTTP/1.1\r\nHost: A.example:80\r\n\r\n"), Passes),
        ("absolute form without a path", raw("GET HTTPS://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n"), Passes),
        ("asterisk form", raw("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), Passes),
        ("authority form", raw("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"), Passes),
        ("an address as host", raw("GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n"), Passes),
        ("100-continue", post("Expect: 100-Continue\r\nContent-Length: 1\r\n", "x"), Passes),
    ]);
}

#[test]
fn e1_length_and_encoding_that_two_servers_read_differently_are_refused() {
    let te = "Transfer-Encoding: chunked\r\n";
    let body = "0\r\n\r\n";
    check(vec![
        ("CL.TE", post(&format!("Content-Length: 5\r\n{te}"), body), Refused(Fault::LengthAndEncoding)),
        ("TE.CL", post(&format!("{te}Content-Length: 5\r\n"), body), Refused(Fault::LengthAndEncoding)),
        (
            "TE.CL with a length of zero",
            post(&format!("{te}Content-Length: 0\r\n"), body),
            Refused(Fault::LengthAndEncoding),
        ),
        ("TE.TE", post(&format!("{te}{te}"), body), Refused(Fault::TransferEncodingRepeated)),
        (
            "TE.TE obfuscated",
            post(&format!("{te}Transfer-Encoding: x\r\n"), body),
            Refused(Fault::TransferEncodingRepeated),
        ),
        ("identity", post("Transfer-Encoding: identity\r\n", ""), Refused(Fault::TransferEncoding)),
        ("a list", post("Transfer-Encoding: gzip, chunked\r\n", body), Refused(Fault::TransferEncoding)),
        (
            "chunked twice in a list",
            post("Transfer-Encoding: chunked, chunked\r\n", body),
            Refused(Fault::TransferEncoding),
        ),
        ("a parameter", post("Transfer-Encoding: chunked;q=1\r\n", body), Refused(Fault::TransferEncoding)),
        ("a prefix", post("Transfer-Encoding: xchunked\r\n", body), Refused(Fault::TransferEncoding)),
        ("quotes", post("Transfer-Encoding: \"chunked\"\r\n", body), Refused(Fault::TransferEncoding)),
        ("a vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", body), Refused(Fault::FieldValue)),
        ("empty", post("Transfer-Encoding:\r\n", ""), Refused(Fault::TransferEncoding)),
        ("folded", post("Transfer-Encoding:\r\n chunked\r\n", body), Refused(Fault::TransferEncoding)),
        (
            "in HTTP/1.0",
            raw("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Refused(Fault::TransferEncodingInOldVersion),
        ),
    ]);
}

#[test]
fn e2_odd_repeated_or_empty_lengths_are_refused() {
    let length = |value: &str| post(&format!("Content-Length:{value}\r\n"), "hello");
    check(vec![
        (
            "repeated and equal",
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            Refused(Fault::ContentLengthRepeated),
        ),
        (
            "repeated and different",
            post("Content-Length: 5\r\ncontent-length: 6\r\n", "hello"),
            Refused(Fault::ContentLengthRepeated),
        ),
        ("a list of equals", length(" 5, 5"), Refused(Fault::ContentLength)),
        ("empty", length(""), Refused(Fault::ContentLength)),
        ("spaces only", length("   "), Refused(Fault::ContentLength)),
        ("a plus", length(" +5"), Refused(Fault::ContentLength)),
        ("a minus", length(" -5"), Refused(Fault::ContentLength)),
        ("hexadecimal", length(" 0x5"), Refused(Fault::ContentLength)),
        ("a fraction", length(" 5.0"), Refused(Fault::ContentLength)),
        ("an exponent", length(" 5e0"), Refused(Fault::ContentLength)),
        ("a space within", length(" 5 0"), Refused(Fault::ContentLength)),
        ("an underscore", length(" 1_0"), Refused(Fault::ContentLength)),
        ("2^63", length(" 9223372036854775808"), Refused(Fault::ContentLength)),
        ("2^64 + 5", length(" 18446744073709551621"), Refused(Fault::ContentLength)),
        ("many digits", length(" 00000000000000000005"), Refused(Fault::ContentLength)),
    ]);
    let (_, verdict) = judge("2^63 - 1", &length(" 9223372036854775807"), RequestLimits::default());
    assert_eq!(verdict, Passes, "2^63 - 1 is a length");
}

#[test]
fn e3_head_grammar_has_one_reading() {
    check(vec![
        ("an empty name", get(": x\r\n"), Refused(Fault::FieldName)),
        ("no colon", get("X\r\n"), Refused(Fault::FieldName)),
        ("a space before the colon", get("X : y\r\n"), Refused(Fault::FieldName)),
        ("a tab before the colon", get("X\t: y\r\n"), Refused(Fault::FieldName)),
        ("a space within a name", get("X Y: z\r\n"), Refused(Fault::FieldName)),
        ("NUL in a name", get("X\0: y\r\n"), Refused(Fault::FieldName)),
        ("NUL in a value", get("X: y\0z\r\n"), Refused(Fault::FieldValue)),
        ("DEL in a value", get("X: y\x7f\r\n"), Refused(Fault::FieldValue)),
        ("a bell in a value", get("X: y\x07\r\n"), Refused(Fault::FieldValue)),
        ("a bare CR in a value", get("X: y\rZ: w\r\n"), Refused(Fault::FieldValue)),
        ("CR CR LF", get("X: y\r\r\n"), Refused(Fault::FieldValue)),
        ("a bare LF behind a field", get("X: y\nZ: w\r\n"), Refused(Fault::LineEnd)),
        ("bare LFs throughout", raw("GET / HTTP/1.1\nHost: a\n\n"), Refused(Fault::LineEnd)),
        ("a bare LF as the empty line", raw("GET / HTTP/1.1\r\nHost: a\r\n\n"), Refused(Fault::LineEnd)),
        ("a bare LF before a request", raw("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Refused(Fault::LineEnd)),
        ("two empty lines before a request", raw("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Refused(Fault::LineEnd)),
        ("folding with a space", get("X: y\r\n z\r\n"), Refused(Fault::FoldedField)),
        ("folding with a tab", get("X: y\r\n\tz\r\n"), Refused(Fault::FoldedField)),
        ("white space before the first field", raw("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), Refused(Fault::FoldedField)),
        ("a NUL before a later fault", get("X: \0\r\nY : z\r\n"), Refused(Fault::FieldValue)),
        ("a NUL behind an earlier fault", get("Y : z\r\nX: \0\r\n"), Refused(Fault::FieldName)),
        ("an odd Expect", post("Expect: 100-continue, x\r\nContent-Length: 1\r\n", "x"), Refused(Fault::Expect)),
        (
            "Expect twice",
            post("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 1\r\n", "x"),
            Refused(Fault::Expect),
        ),
    ]);
}

#[test]
fn request_lines_have_one_reading() {
    let line = |line: &str| raw(&format!("{line}\r\nHost: a\r\n\r\n"));
    check(vec![
        ("no version", line("GET /"), Refused(Fault::RequestLine)),
        ("no target", line("GET  HTTP/1.1"), Refused(Fault::RequestLine)),
        ("two spaces", line("GET  / HTTP/1.1"), Refused(Fault::RequestLine)),
        ("two spaces before the version", line("GET /  HTTP/1.1"), Refused(Fault::RequestLine)),
        ("a space at the end", line("GET / HTTP/1.1 "), Refused(Fault::RequestLine)),
        ("a space at the beginning", line(" GET / HTTP/1.1"), Refused(Fault::RequestLine)),
        ("a space in the target", line("GET /a b HTTP/1.1"), Refused(Fault::RequestLine)),
        ("a tab for a space", line("GET\t/ HTTP/1.1"), Refused(Fault::RequestLine)),
        ("a bare CR", line("GET /\r HTTP/1.1"), Refused(Fault::Target)),
        ("a method that is no token", line("G@T / HTTP/1.1"), Refused(Fault::RequestLine)),
        ("HTTP/1.2", line("GET / HTTP/1.2"), Refused(Fault::RequestLine)),
        ("HTTP/2.0", line("GET / HTTP/2.0"), Refused(Fault::RequestLine)),
        ("HTTP/0.9", raw("GET /\r\n\r\n"), Refused(Fault::RequestLine)),
        ("lower case", line("GET / http/1.1"), Refused(Fault::RequestLine)),
        ("HTTP/1.10", line("GET / HTTP/1.10"), Refused(Fault::RequestLine)),
        ("the preface of HTTP/2", raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Refused(Fault::RequestLine)),
        ("a TLS hello that never ends", b"\x16\x03\x01\x02\x00\x01".to_vec(), Refused(Fault::RequestLine)),
        ("a byte no method has, behind an empty line", raw("\r\n(a\nb"), Refused(Fault::RequestLine)),
        ("a fragment", line("GET /a#b HTTP/1.1"), Refused(Fault::Target)),
        ("a fragment in the query", line("GET /a?b#c HTTP/1.1"), Refused(Fault::Target)),
        ("NUL in the target", line("GET /\0 HTTP/1.1"), Refused(Fault::Target)),
        ("DEL in the target", line("GET /\x7f HTTP/1.1"), Refused(Fault::Target)),
        ("bytes above ASCII in the target", line("GET /ä HTTP/1.1"), Refused(Fault::Target)),
        ("what http::Uri refuses", line("GET /<a> HTTP/1.1"), Refused(Fault::Target)),
        ("a relative target", line("GET a HTTP/1.1"), Refused(Fault::Target)),
        ("a query alone", line("GET ?a HTTP/1.1"), Refused(Fault::Target)),
        ("an asterisk for GET", line("GET * HTTP/1.1"), Refused(Fault::Target)),
        ("an authority for GET", line("GET a:80 HTTP/1.1"), Refused(Fault::Target)),
        ("another scheme", line("GET ftp://a/ HTTP/1.1"), Refused(Fault::Target)),
        ("a scheme without slashes", line("GET http:/a HTTP/1.1"), Refused(Fault::Target)),
        ("a path for CONNECT", line("CONNECT /a HTTP/1.1"), Refused(Fault::Target)),
        ("CONNECT without a port", line("CONNECT a HTTP/1.1"), Refused(Fault::Target)),
        (
            "CONNECT with a body",
            raw("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\nx"),
            Refused(Fault::UnexpectedBody),
        ),
    ]);
}

#[test]
fn b1_exactly_one_sane_host() {
    let host = |value: &str| raw(&format!("GET / HTTP/1.1\r\nHost:{value}\r\n\r\n"));
    let absolute = |authority: &str| raw(&format!("GET http://{authority}/ HTTP/1.1\r\nHost: a\r\n\r\n"));
    let mut rows = vec![
        ("no Host in HTTP/1.1", raw("GET / HTTP/1.1\r\n\r\n"), Refused(Fault::HostMissing)),
        ("two Hosts", get("host: b.example\r\n"), Refused(Fault::HostRepeated)),
        ("two equal Hosts", get("HOST: a.example\r\n"), Refused(Fault::HostRepeated)),
        ("two Hosts in HTTP/1.0", raw("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), Refused(Fault::HostRepeated)),
        ("a target that disagrees with Host", absolute("b"), Refused(Fault::HostDiffers)),
        ("a target with a port that Host lacks", absolute("a:80"), Refused(Fault::HostDiffers)),
        ("user information in the target", absolute("u@a"), Refused(Fault::HostMalformed)),
        ("no authority in the target", absolute(""), Refused(Fault::HostMalformed)),
    ];
    for value in [
        "",
        " ",
        " a,b",
        " a b",
        " a/b",
        " u@a",
        " a:b",
        " a:",
        " :80",
        " a:65536",
        " a:000080",
        " a?b",
        " a#b",
        " [::1",
        " [::1]x",
        " [a]",
        " ::1",
        " a\\b",
        " a%2e",
        " ä",
        " a:80:80",
        " http://a",
        " a;b",
        " *",
    ] {
        rows.push(("a malformed Host", host(value), Refused(Fault::HostMalformed)));
    }
    check(rows);
}

#[test]
fn e4_chunks_are_read_strictly() {
    let broken = |fault| Broken(fault);
    check(vec![
        ("no digits", chunked("\r\nhello"), broken(Fault::ChunkSize)),
        ("a sign", chunked("+5\r\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkSize)),
        ("0x", chunked("0x5\r\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkSize)),
        ("a space before", chunked(" 5\r\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkSize)),
        ("a space behind", chunked("5 \r\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkSize)),
        ("an underscore", chunked("1_0\r\n"), broken(Fault::ChunkSize)),
        ("17 digits", chunked("00000000000000005\r\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkSize)),
        ("2^63", chunked("8000000000000000\r\n"), broken(Fault::ChunkSize)),
        ("an LF behind the size", chunked("5\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkSize)),
        ("CR without LF", chunked("5\rhello\r\n0\r\n\r\n"), broken(Fault::ChunkEnd)),
        ("data too long", chunked("5\r\nhello!\r\n0\r\n\r\n"), broken(Fault::ChunkEnd)),
        ("data too short", chunked("5\r\nhell\r\n0\r\n\r\n"), broken(Fault::ChunkEnd)),
        ("an LF behind the data", chunked("5\r\nhello\n0\r\n\r\n"), broken(Fault::ChunkEnd)),
        ("an LF in an extension", chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkExtension)),
        ("an LF in a quoted extension", chunked("5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkExtension)),
        (
            "a CR LF in a quoted extension ends it",
            chunked("5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"),
            broken(Fault::ChunkEnd),
        ),
        ("a bare CR in an extension", chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkEnd)),
        ("a NUL in an extension", chunked("5;a\0\r\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkExtension)),
        ("bytes above ASCII in an extension", chunked("5;ä\r\nhello\r\n0\r\n\r\n"), broken(Fault::ChunkExtension)),
        (
            "a huge extension",
            chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5000))),
            broken(Fault::ChunkExtensionsTooLarge),
        ),
        (
            "many small extensions",
            chunked(&format!("{}0\r\n\r\n", "1;a=1\r\nx\r\n".repeat(1025))),
            broken(Fault::ChunkExtensionsTooLarge),
        ),
        ("an LF at the end", chunked("0\r\n\n"), broken(Fault::Trailer)),
        ("a folded trailer", chunked("0\r\nA: b\r\n c\r\n\r\n"), broken(Fault::Trailer)),
        ("a trailer without name", chunked("0\r\n: b\r\n\r\n"), broken(Fault::Trailer)),
        ("a space before a trailer's colon", chunked("0\r\nA : b\r\n\r\n"), broken(Fault::Trailer)),
        ("a NUL in a trailer", chunked("0\r\nA: \0\r\n\r\n"), broken(Fault::Trailer)),
        ("an LF in a trailer", chunked("0\r\nA: b\n\r\n"), broken(Fault::Trailer)),
        ("a bare CR in a trailer", chunked("0\r\nA: b\rc\r\n\r\n"), broken(Fault::Trailer)),
        ("Content-Length as a trailer", chunked("0\r\nContent-Length: 5\r\n\r\n"), broken(Fault::Trailer)),
        ("Transfer-Encoding as a trailer", chunked("0\r\nTRANSFER-encoding: chunked\r\n\r\n"), broken(Fault::Trailer)),
        ("Host as a trailer", chunked("0\r\nHost: b\r\n\r\n"), broken(Fault::Trailer)),
        ("many trailers", chunked(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(101))), broken(Fault::TrailersTooLarge)),
        ("large trailers", chunked(&format!("0\r\nA: {}\r\n\r\n", "b".repeat(9000))), broken(Fault::TrailersTooLarge)),
    ]);
}

#[test]
fn a_broken_body_passes_up_to_the_byte_at_fault() {
    let bytes = chunked("5\r\nhello!\r\n0\r\n\r\n");
    let (passed, _) = judge("data too long", &bytes, RequestLimits::default());
    assert_eq!(passed, chunked("5\r\nhello"));
}

#[test]
fn e7_nothing_passes_behind_an_undecided_upgrade() {
    let handshake = get("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n");
    check(vec![("a handshake", handshake.clone(), AwaitsUpgrade)]);
    let with_more = [&handshake[..], b"\x81\x05hello"].concat();
    let (passed, verdict) = judge("frames at once", &with_more, RequestLimits::default());
    assert_eq!((passed, verdict), (handshake, AwaitsUpgrade));
}

#[test]
fn e7_an_upgrade_with_a_body_never_becomes_a_tunnel() {
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let with_body = |method: &str, fields: &str| {
        raw(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 1\r\n\r\nx"))
    };
    check(vec![
        ("a WebSocket handshake with a body", with_body("GET", upgrade), Refused(Fault::UnexpectedBody)),
        (
            "h2c with a body is an ordinary request",
            with_body("POST", "Connection: upgrade\r\nUpgrade: h2c\r\n"),
            Passes,
        ),
        ("a POST is no handshake", with_body("POST", upgrade), Passes),
        ("Upgrade that Connection does not nominate", get("Upgrade: websocket\r\n"), Passes),
        ("a nomination without Upgrade", get("Connection: upgrade\r\n"), Passes),
        ("HTTP/1.0", raw("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"), Passes),
    ]);
}

#[test]
fn f4_large_heads_are_refused_and_the_bound_itself_is_allowed() {
    let limits = RequestLimits { head_bytes: 400, head_fields: 3, target_bytes: 50 };
    let head = |target: usize, fields: usize, padding: usize| {
        let mut head = format!("GET /{} HTTP/1.1\r\nHost: a\r\n", "t".repeat(target - 1));
        for _ in 1..fields {
            head.push_str("F: v\r\n");
        }
        if padding > 0 {
            head.push_str(&format!("P: {}\r\n", "p".repeat(padding)));
        }
        head + "\r\n"
    };
    let fill = 400 - head(1, 1, 1).len();
    for (claim, head, expected) in [
        ("a target at the bound", head(50, 1, 0), Passes),
        ("a target beyond it", head(51, 1, 0), Refused(Fault::TargetTooLong)),
        ("a target beyond every line", head(390, 1, 0), Refused(Fault::TargetTooLong)),
        ("fields at the bound", head(1, 3, 0), Passes),
        ("one field too many", head(1, 4, 0), Refused(Fault::TooManyFields)),
        ("a head at the bound", head(1, 1, fill + 1), Passes),
        ("one byte too many", head(1, 1, fill + 2), Refused(Fault::HeadTooLarge)),
        ("a line that never ends", head(1, 1, 5000).trim_end().to_owned(), Refused(Fault::HeadTooLarge)),
    ] {
        let (_, verdict) = judge(claim, head.as_bytes(), limits);
        assert_eq!(verdict, expected, "{claim}");
    }
}

#[test]
fn what_came_before_a_fault_passes_and_nothing_behind_it() {
    let bytes = [get(""), raw("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), get("")].concat();
    let (passed, verdict) = judge("the second of three", &bytes, RequestLimits::default());
    assert_eq!((passed, verdict), (get(""), Refused(Fault::FieldName)));
}

#[test]
fn half_a_head_never_passes() {
    let bytes = get("");
    let (passed, verdict) = judge("half a head", &bytes[..bytes.len() - 1], RequestLimits::default());
    assert_eq!((passed, verdict), (Vec::new(), Passes));
}
