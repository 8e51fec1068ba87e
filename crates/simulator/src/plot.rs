//! A picture of how it went: SVG 1.1, written by hand, small enough for a document.

use std::fmt::Write as _;

use crate::outcome::{Outcome, Sample};

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 34.0;
const GAP: f64 = 52.0;

/// Points of a line at most: what a picture of this width shows.
const POINTS: usize = 480;

/// One line: its name, its colour, and what it shows.
type Line<'a> = (&'a str, &'a str, &'a dyn Fn(&Sample) -> f64);

/// Draws outcomes of one load under each other, each with its title: sessions, the capacity of the pods that serve, and that of
/// all pods.
#[must_use]
pub fn svg(outcomes: &[(String, &Outcome)], capacity: u32) -> String {
    let pods = |sample: &Sample| sample.pods as f64 * f64::from(capacity);
    let lines: [Line<'_>; 3] = [
        ("all pods", "#d62728", &pods),
        ("pods that serve", "#1f77b4", &|sample| sample.capacity as f64),
        ("sessions", "#2ca02c", &|sample| sample.sessions as f64),
    ];
    let all = || outcomes.iter().flat_map(|(_, outcome)| &outcome.course);
    let most = all().map(|sample| pods(sample).max(sample.sessions as f64)).fold(1.0, f64::max);
    let scale = Scale { most: round_up(most), until: all().map(|sample| sample.at).max().unwrap_or(0).max(1) as f64 };
    let height = TOP + outcomes.len() as f64 * (HEIGHT + GAP);
    let width = LEFT + WIDTH + 16.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut x = LEFT;
    for (name, colour, _) in lines {
        put(&mut out, format_args!("<text x=\"{x}\" y=\"16\" fill=\"{colour}\">{name}</text>"));
        x += 130.0;
    }
    put(&mut out, format_args!("<text x=\"{x}\" y=\"16\" fill=\"#555\">places, over hours</text>"));
    for (n, (title, outcome)) in outcomes.iter().enumerate() {
        let top = TOP + 14.0 + n as f64 * (HEIGHT + GAP);
        put(
            &mut out,
            format_args!("<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>", top - 4.0, escape(title)),
        );
        scale.axes(&mut out, top);
        for (_, colour, value) in lines {
            scale.line(&mut out, top, colour, &outcome.course, value);
        }
    }
    out.push_str("</svg>\n");
    out
}

struct Scale {
    most: f64,
    until: f64,
}

impl Scale {
    fn axes(&self, out: &mut String, top: f64) {
        let (bottom, right) = (top + HEIGHT, LEFT + WIDTH);
        put(out, format_args!("<path d=\"M{LEFT} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>"));
        for part in 0..=4 {
            let value = self.most * f64::from(part) / 4.0;
            let y = bottom - HEIGHT * f64::from(part) / 4.0;
            put(out, format_args!("<path d=\"M{LEFT} {y}H{right}\" stroke=\"#ddd\"/>"));
            put(
                out,
                format_args!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{value:.0}</text>", LEFT - 6.0, y + 4.0),
            );
        }
        let hours = self.until / 3_600_000.0;
        for part in 0..=8 {
            let hour = hours * f64::from(part) / 8.0;
            let x = LEFT + WIDTH * f64::from(part) / 8.0;
            // A day ends at 23:59, where the last sample is.
            let digits = usize::from(hours < 8.0);
            put(
                out,
                format_args!("<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{hour:.digits$}</text>", bottom + 16.0),
            );
        }
    }

    fn line(&self, out: &mut String, top: f64, colour: &str, course: &[Sample], value: &dyn Fn(&Sample) -> f64) {
        let mut path = String::new();
        // The highest of each piece: a peak is what one looks for.
        for piece in course.chunks(course.len().div_ceil(POINTS).max(1)) {
            let y = top + HEIGHT * (1.0 - piece.iter().map(value).fold(0.0, f64::max) / self.most);
            let x = LEFT + WIDTH * piece[0].at as f64 / self.until;
            let verb = if path.is_empty() { 'M' } else { 'L' };
            // Writing to a text does not fail.
            let _ = write!(path, "{verb}{x:.1} {y:.1}");
        }
        if !path.is_empty() {
            put(out, format_args!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\"/>"));
        }
    }
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a text does not fail.
    let _ = writeln!(out, "{line}");
}

/// The next number that can be divided into four and read.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 6.0, 8.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

/// Text between tags (XML 1.0, 2.4).
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_what_it_is_of() {
        let course =
            (0..1_440).map(|minute| Sample { at: minute * 60_000, sessions: 10, capacity: 40, pods: 3 }).collect();
        let outcome = Outcome { course, ..Outcome::default() };
        let svg = svg(&[("a < b".to_owned(), &outcome), ("again".to_owned(), &outcome)], 20);
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n"));
        assert!(svg.contains(">a &lt; b</text>") && svg.contains(">again</text>"));
        assert_eq!(svg.matches("stroke-width").count(), 6, "three lines each");
        assert!(svg.contains(">60</text>"), "sixty places are the most");
        assert!(svg.len() < 60_000, "{}", svg.len());
    }

    #[test]
    fn nothing_can_be_drawn() {
        assert!(svg(&[], 20).ends_with("</svg>\n"));
        assert!(svg(&[("none".to_owned(), &Outcome::default())], 0).contains("none"));
    }

    #[test]
    fn axes_end_where_one_can_read() {
        for (value, expected) in
            [(1.0, 1.0), (3.0, 4.0), (60.0, 60.0), (61.0, 80.0), (2_840.0, 4_000.0), (900.0, 1_000.0)]
        {
            assert!((round_up(value) - expected).abs() < 1e-9, "{value}");
        }
    }
}
