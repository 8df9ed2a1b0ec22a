//! A scrape, read (Prometheus text format 0.0.4).

use std::collections::BTreeMap;

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name, with `_bucket`, `_sum` or `_count` for histograms.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All samples of one scrape, and the text they were read from.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Every sample, in order.
    pub samples: Vec<Sample>,
    /// The family names that have a `# TYPE` line, with the type.
    pub types: BTreeMap<String, String>,
    /// As it came.
    pub text: String,
}

impl Metrics {
    /// Reads a scrape.
    ///
    /// # Panics
    /// On a line that is neither comment nor sample.
    pub fn parse(text: &str) -> Self {
        let mut samples = Vec::new();
        let mut types = BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type in {line:?}"));
                types.insert(name.to_owned(), kind.to_owned());
            } else if !line.is_empty() && !line.starts_with('#') {
                samples.push(sample(line).unwrap_or_else(|| panic!("not a sample: {line:?}")));
            }
        }
        Self { samples, types, text: text.to_owned() }
    }

    /// The sum of all samples of this name that have all of these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The one sample of this name with these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).next().map(|sample| sample.value)
    }

    /// Whether there is any sample, or a `# TYPE` line, of this family.
    pub fn has(&self, family: &str) -> bool {
        self.types.contains_key(family) || self.samples.iter().any(|sample| sample.name == family)
    }

    /// The samples of this name that have all of these labels.
    pub fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> + 'a {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        })
    }
}

fn sample(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    let rest = if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            if let Some(after) = inner.strip_prefix('}') {
                break after;
            }
            let (label, after) = inner.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            inner = after.strip_prefix(',').unwrap_or(after);
        }
    } else {
        rest
    };
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_read_with_labels_escapes_and_types() {
        let metrics = Metrics::parse(
            "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"}\\n\"} 3\na_total{x=\"2\"} 4\nb 1e3 1700000000\nc_bucket{le=\"+Inf\"} 2\n",
        );
        assert_eq!(metrics.sum("a_total", &[]), 7.0);
        assert_eq!(metrics.value("a_total", &[("y", "q\"}\n")]), Some(3.0));
        assert_eq!(metrics.value("b", &[]), Some(1000.0));
        assert_eq!(metrics.types["a_total"], "counter");
        assert!(metrics.has("a_total") && !metrics.has("nothing"));
    }
}
