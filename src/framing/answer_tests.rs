//! Answers an upstream should not give, one claim a row, cut in every usual way (E9).

use super::reading::{Verdict, read_answers, usual_cuts};
use super::{AnswerLimits, Asked, Fault};

use Verdict::{AwaitsUpgrade, Broken, Passes};

const OK: &str = "HTTP/1.1 200 OK\r\n";
const GET: Asked = Asked { is_head: false, wants_upgrade: false };

/// The one outcome of every way of cutting.
fn judge(claim: &str, bytes: &[u8], asked: Asked) -> (Vec<u8>, Verdict) {
    let limits = AnswerLimits::default();
    let whole = read_answers([bytes.to_vec()], 128 * 1024, limits, asked);
    for pieces in usual_cuts(bytes) {
        for room in [7, 128 * 1024] {
            let outcome = read_answers(pieces.clone(), room, limits, asked);
            assert_eq!(outcome, whole, "{claim}: cut into {} pieces, read into {room} bytes", pieces.len());
        }
    }
    assert!(bytes.starts_with(&whole.passed), "{claim}: bytes were changed");
    (whole.passed, whole.verdict)
}

fn check_get(rows: Vec<(&str, String, Verdict)>) {
    for (claim, answer, expected) in rows {
        let (passed, verdict) = judge(claim, answer.as_bytes(), GET);
        assert_eq!(verdict, expected, "{claim}");
        if verdict == Passes {
            assert_eq!(passed, answer.as_bytes(), "{claim}");
        }
    }
}

fn ok(rest: &str) -> String {
    format!("{OK}{rest}")
}

#[test]
fn ordinary_answers_pass_untouched() {
    check_get(vec![
        ("a body of known length", ok("Content-Length: 2\r\n\r\nhi"), Passes),
        ("chunks and trailers", ok("Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n"), Passes),
        ("a body until the end", ok("\r\nhi there\r\n\r\nHTTP/1.1 400 Bad\r\n\r\n"), Passes),
        ("HTTP/1.0", "HTTP/1.0 404 Not Found\r\n\r\nnone".into(), Passes),
        ("no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n".into(), Passes),
        ("an empty reason", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n".into(), Passes),
        ("a status nobody knows", "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n".into(), Passes),
        (
            "100 before 200",
            ok("Content-Length: 2\r\n\r\nhi").replace("HTTP/1.1 200", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"),
            Passes,
        ),
        ("204 without a body", "HTTP/1.1 204 No Content\r\n\r\n".into(), Passes),
        ("304 with a length and no body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n".into(), Passes),
    ]);
}

#[test]
fn e9_answers_with_two_readings_are_broken_off() {
    let te = "Transfer-Encoding: chunked\r\n";
    check_get(vec![
        ("CL.TE", ok(&format!("Content-Length: 5\r\n{te}\r\n0\r\n\r\n")), Broken(Fault::LengthAndEncoding)),
        ("TE.CL", ok(&format!("{te}Content-Length: 5\r\n\r\n0\r\n\r\n")), Broken(Fault::LengthAndEncoding)),
        (
            "CL.TE in a 304",
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n{te}\r\n"),
            Broken(Fault::LengthAndEncoding),
        ),
        ("equal lengths", ok("Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"), Broken(Fault::ContentLengthRepeated)),
        ("a list of lengths", ok("Content-Length: 2, 2\r\n\r\nhi"), Broken(Fault::ContentLength)),
        ("a negative length", ok("Content-Length: -1\r\n\r\n"), Broken(Fault::ContentLength)),
        ("gzip, chunked", ok("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), Broken(Fault::TransferEncoding)),
        (
            "chunks in HTTP/1.0",
            format!("HTTP/1.0 200 OK\r\n{te}\r\n0\r\n\r\n"),
            Broken(Fault::TransferEncodingInOldVersion),
        ),
        ("LF only", "HTTP/1.1 200 OK\nContent-Length: 0\n\n".into(), Broken(Fault::LineEnd)),
        ("an LF behind a field", ok("Content-Length: 0\nX: y\r\n\r\n"), Broken(Fault::LineEnd)),
        ("folding", ok("X: y\r\n z\r\n\r\n"), Broken(Fault::FoldedField)),
        ("a space before the colon", ok("Content-Length : 2\r\n\r\nhi"), Broken(Fault::FieldName)),
        ("a NUL", ok("X: \0\r\n\r\n"), Broken(Fault::FieldValue)),
        ("an empty line before the status", format!("\r\n{OK}\r\n"), Broken(Fault::LineEnd)),
        ("another protocol", "SSH-2.0-OpenSSH_9.6\r\n".into(), Broken(Fault::StatusLine)),
        ("HTTP/2", "HTTP/2 200 OK\r\n\r\n".into(), Broken(Fault::StatusLine)),
        ("two digits", "HTTP/1.1 20 OK\r\n\r\n".into(), Broken(Fault::StatusLine)),
        ("four digits", "HTTP/1.1 2000 OK\r\n\r\n".into(), Broken(Fault::StatusLine)),
        ("status 099", "HTTP/1.1 099 Odd\r\n\r\n".into(), Broken(Fault::StatusLine)),
        ("a control byte in the reason", "HTTP/1.1 200 O\x08K\r\n\r\n".into(), Broken(Fault::StatusLine)),
        ("a bad chunk", ok(&format!("{te}\r\n5\r\nhello!")), Broken(Fault::ChunkEnd)),
        ("a huge head", ok(&format!("X: {}\r\n\r\n", "y".repeat(65 * 1024))), Broken(Fault::HeadTooLarge)),
        (
            "a body in a 1xx",
            format!("HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\n{OK}\r\n"),
            Broken(Fault::UnexpectedBody),
        ),
        (
            "101 without being asked",
            "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n".into(),
            Broken(Fault::UnexpectedUpgrade),
        ),
    ]);
}

#[test]
fn e9_informational_answers_are_counted() {
    let hint = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let last = ok("Content-Length: 0\r\n\r\n");
    check_get(vec![
        ("eight", hint.repeat(8) + &last, Passes),
        ("nine", hint.repeat(9) + &last, Broken(Fault::TooManyInformational)),
    ]);
}

#[test]
fn an_answer_to_head_has_no_body_whatever_it_says() {
    let asked = Asked { is_head: true, ..GET };
    let two = ok("Content-Length: 38\r\n\r\n").repeat(2);
    assert_eq!(judge("two answers", two.as_bytes(), asked), (two.clone().into_bytes(), Passes));
}

#[test]
fn a_101_that_was_asked_for_ends_http() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let bytes = format!("{head}\u{1}\u{5}hello\n\0HTTP");
    let (passed, verdict) = judge("a tunnel", bytes.as_bytes(), Asked { wants_upgrade: true, ..GET });
    assert_eq!((passed, verdict), (head.as_bytes().to_vec(), AwaitsUpgrade));
}
