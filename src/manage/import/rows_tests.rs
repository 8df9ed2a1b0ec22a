use super::*;

/// A line with its fields, or its problem.
type Found = (u64, Result<Vec<String>, String>);

fn rows(format: Format, text: &str) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    read_rows(format, &mut text.as_bytes(), |row| {
        let fields = row.fields.map(|fields| fields.iter().map(|(name, value)| format!("{name}={value}")).collect());
        found.push((row.line, fields));
        true
    })?;
    Ok(found)
}

fn fields(texts: &[&str]) -> Result<Vec<String>, String> {
    Ok(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn json_lines_count_every_line_and_skip_empty_ones() {
    let found = rows(Format::Jsonl, "\u{feff}{\"a\":1}\n\n{\"b\":\"x\"}\r\n{\"c\":[]}").unwrap();
    assert_eq!(found, [(1, fields(&["a=1"])), (3, fields(&["b=\"x\""])), (4, fields(&["c=[]"]))]);
}

#[test]
fn a_broken_line_is_told_without_quoting_it() {
    let secret = "hunter2-hunter2";
    for broken in [
        format!("{{\"key\":\"{secret}\""),
        format!("\"{secret}\""),
        format!("{{\"key\":{secret}}}"),
        format!("{{\"key\":\"{secret}\",\"key\":\"other\"}}"),
        format!("[\"{secret}\"]"),
        format!("{{\"key\":\"{secret}\"}} {secret}"),
    ] {
        let found = rows(Format::Jsonl, &format!("{broken}\n{{\"a\":1}}\n")).unwrap();
        let (line, problem) = (&found[0].0, found[0].1.as_ref().unwrap_err());
        assert!(*line == 1 && !problem.contains(secret), "{broken}: {problem}");
        assert_eq!(found[1], (2, fields(&["a=1"])), "the next row is read all the same");
    }
}

#[test]
fn a_field_that_stands_twice_is_no_row() {
    let found = rows(Format::Jsonl, "{\"key\":\"a\",\"key\":\"b\"}\n").unwrap();
    assert!(found[0].1.as_ref().unwrap_err().contains("twice"), "{found:?}");
}

#[test]
fn csv_rows_have_the_line_they_begin_on() {
    let found = rows(Format::Csv, "name,scopes\n\"a\nb\",x y\nc,\nd,e,f\n").unwrap();
    assert_eq!(found[0], (2, fields(&["name=\"a\\nb\"", "scopes=\"x y\""])));
    assert_eq!(found[1], (4, fields(&["name=\"c\"", "scopes=\"\""])));
    assert_eq!((found[2].0, found[2].1.is_err()), (5, true));
    assert!(rows(Format::Csv, "name,name\na,b\n").unwrap_err().contains("twice"));
    assert!(rows(Format::Csv, "{}").unwrap_err().contains("no column `name`"), "also without any row");
    assert_eq!(rows(Format::Csv, "").unwrap(), []);
}

#[test]
fn an_array_counts_its_objects_and_quotes_nothing() {
    let found = rows(Format::Json, "[{\"a\":1},\n{\"b\":2,\"b\":3}, {}]").unwrap();
    assert_eq!(found[0], (1, fields(&["a=1"])));
    assert!(found[1].1.as_ref().unwrap_err().contains("twice"), "{found:?}");
    assert_eq!(found[2], (3, fields(&[])));
    let secret = "hunter2-hunter2";
    for broken in
        [format!("[\"{secret}\"]"), format!("{{\"key\":\"{secret}\"}}"), format!("[{{}}] {secret}"), String::new()]
    {
        let problem = rows(Format::Json, &broken).unwrap_err();
        assert!(problem.contains("array") && !problem.contains(secret), "{broken}: {problem}");
    }
}

#[test]
fn reading_ends_where_it_is_told_to() {
    for (format, text) in
        [(Format::Json, "[{},{},{}]"), (Format::Jsonl, "{}\n{}\n{}\n"), (Format::Csv, "name\n1\n2\n3\n")]
    {
        let mut count = 0;
        read_rows(format, &mut text.as_bytes(), |_| {
            count += 1;
            count < 2
        })
        .unwrap();
        assert_eq!(count, 2, "{format:?}");
    }
}

#[test]
fn a_name_that_may_be_a_key_is_not_repeated() {
    let secret = "Hunter2-hunter2";
    let problem = rows(Format::Csv, &format!("{secret},{secret}\na,b\n")).unwrap_err();
    assert!(problem.contains("twice") && !problem.contains(secret), "{problem}");
    assert_eq!(shown_name("colour"), " \"colour\"");
}

#[test]
fn a_row_without_end_is_not_read_into_memory() {
    let endless = format!("{{\"a\":\"{}", "x".repeat(400 * 1024));
    assert!(rows(Format::Jsonl, &endless).unwrap_err().contains("line 1 is longer"));
    let numbers = "0,".repeat(200 * 1024);
    for (format, text, place) in [
        (Format::Json, format!("[{{}},\n{{\"a\":[{numbers}0]}}]"), "row 2"),
        (Format::Json, format!("[{{}}, {}{{}}]", " ".repeat(400 * 1024)), "row 2"),
        (Format::Csv, format!("name\n1\n{numbers}\n"), "line 3"),
        (Format::Csv, numbers.clone(), "line 1"),
    ] {
        let problem = rows(format, &text).unwrap_err();
        assert!(problem.contains(&format!("{place} is longer than")), "{format:?}: {problem}");
    }
}

#[test]
fn rows_within_the_bound_are_read_however_many_they_are() {
    let text = "x".repeat(200 * 1024);
    let row = format!("{{\"a\":\"{text}\"}}");
    assert_eq!(rows(Format::Json, &format!("[{row},{row},{row}]")).unwrap().len(), 3);
    assert_eq!(rows(Format::Csv, &format!("name\n{text}\n{text}\n{text}\n")).unwrap().len(), 3);
}
