//! `report html`: one page that needs nothing else. The matrix of the last night is plain HTML, so
//! that it can be read where scripts do not run; the script adds filters, other nights, details.

use serde::Serialize;

use crate::diagnostic::printable;
use crate::report::findings::State;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the page shows.
#[derive(Debug, Default, Serialize)]
pub struct Page {
    #[serde(skip)]
    pub title: String,
    #[serde(skip)]
    pub made: String,
    /// Oldest first.
    pub nights: Vec<Night>,
    pub hosts: Vec<String>,
    /// The empty name stands for tasks outside roles.
    pub roles: Vec<String>,
    /// Host by host, role by role: run lengths `[state, nights, ...]`; 9 is "not there".
    pub cells: Vec<Vec<u32>>,
    pub findings: Vec<Span>,
    /// By host: why it failed in the last night, or nothing.
    pub failures: Vec<Option<String>>,
    #[serde(skip)]
    pub new: Vec<String>,
    #[serde(skip)]
    pub gone: Vec<String>,
    /// Host or role, seconds in the last night, median of all nights.
    #[serde(skip)]
    pub host_times: Vec<(String, f64, f64)>,
    #[serde(skip)]
    pub role_times: Vec<(String, f64, f64)>,
}

/// A run of the page.
#[derive(Debug, Default, Serialize)]
pub struct Night {
    pub run: String,
    pub when: String,
    pub command: String,
    pub exit: u8,
    pub revision: String,
    pub seconds: f64,
    /// Findings of it, and hosts that were not reached.
    pub bad: usize,
    pub dark: usize,
}

/// A finding over the nights in which it was there and the same.
#[derive(Debug, Default, Serialize)]
pub struct Span {
    pub h: usize,
    pub r: usize,
    pub what: String,
    pub severity: String,
    pub state: usize,
    pub summary: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    pub from: usize,
    pub to: usize,
}

/// A state as the page counts it.
#[must_use]
pub fn number(state: State) -> u32 {
    State::ALL.iter().position(|other| *other == state).and_then(|at| u32::try_from(at).ok()).unwrap_or(9)
}

/// Appends one night to run lengths.
pub fn push(runs: &mut Vec<u32>, state: u32) {
    match runs[..] {
        [.., last, ref mut count] if last == state => *count += 1,
        _ => runs.extend([state, 1]),
    }
}

/// Text for HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// The page as one file.
#[must_use]
pub fn render(page: &Page) -> String {
    // `<` ends a script in HTML wherever it stands in JSON.
    let data = serde_json::to_string(page).unwrap_or_default().replace('<', "\\u003c");
    let title = escaped(&page.title);
    format!(
        "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">
<meta name=\"referrer\" content=\"no-referrer\">
<title>{title}</title>
<style>
{STYLE}</style>
<body>
<a class=\"skip\" href=\"#matrix\">to the matrix</a>
<header><h1>{title}</h1><p class=\"dim\">{made}</p></header>
<main>
{numbers}
{changes}
<h2 id=\"over-time\">Drift over time</h2>
{plot}
<h2>Hosts by roles</h2>
{filters}
{legend}
<div class=\"scroll\" role=\"region\" aria-label=\"hosts by roles\" tabindex=\"0\">
{matrix}
</div>
<section id=\"detail\" aria-live=\"polite\" hidden></section>
<h2>Timings</h2>
<div class=\"side\">{roles}{hosts}</div>
</main>
<script type=\"application/json\" id=\"data\">{data}</script>
<script>
{SCRIPT}</script>
</html>
",
        made = escaped(&page.made),
        numbers = numbers(page),
        changes = changes(page),
        plot = plot(page),
        filters = filters(page),
        legend = legend(),
        matrix = matrix(page),
        roles = times("role", &page.role_times),
        hosts = times("host", &page.host_times),
    )
}

/// The state of a cell in the last night.
fn last(runs: &[u32]) -> u32 {
    runs.len().checked_sub(2).map_or(9, |at| runs[at])
}

fn numbers(page: &Page) -> String {
    let width = page.roles.len().max(1);
    let mut counts = [0_usize; 6];
    for row in page.cells.chunks(width) {
        let worst = row.iter().map(|runs| last(runs)).filter(|state| *state < 6).max().unwrap_or(0);
        counts[worst as usize] += 1;
    }
    let items: String = State::ALL
        .iter()
        .zip(counts)
        .filter(|(state, count)| *count > 0 || **state == State::Ok)
        .map(|(state, count)| format!("<li class=\"k{}\"><b>{count}</b>{}</li>", number(*state), state.word()))
        .collect();
    format!("<ul class=\"numbers\" aria-label=\"hosts in the last run\">{items}</ul>")
}

fn changes(page: &Page) -> String {
    let list = |word: &str, lines: &[String]| {
        let shown: String = lines.iter().take(200).map(|line| format!("<li><b>{word}</b> {}</li>", escaped(line))).collect();
        let more = lines.len().saturating_sub(200);
        if more > 0 { format!("{shown}<li>and {more} more {word}</li>") } else { shown }
    };
    let body = match (page.new.is_empty(), page.gone.is_empty(), page.nights.len()) {
        (_, _, 0 | 1) => "<p>This is the first run that is shown.</p>".to_owned(),
        (true, true, _) => "<p>Nothing changed.</p>".to_owned(),
        _ => format!("<ul class=\"news\">{}{}</ul>", list("new", &page.new), list("gone", &page.gone)),
    };
    format!("<h2>Since the run before</h2>\n{body}")
}

/// Bars, one a night; the same numbers as a table for those who do not see them.
fn plot(page: &Page) -> String {
    let count = page.nights.len().max(1);
    let most = page.nights.iter().map(|night| night.bad).max().unwrap_or(0).max(1);
    let step = 1000.0 / as_f64(count);
    let mut bars = String::new();
    let mut rows = String::new();
    for (index, night) in page.nights.iter().enumerate() {
        let height = (as_f64(night.bad) / as_f64(most) * 100.0).max(1.0);
        let class = if night.dark > 0 { " class=\"dark\"" } else { "" };
        let dark = if night.dark > 0 { format!(", {} hosts not reached", night.dark) } else { String::new() };
        let when = escaped(&night.when);
        bars.push_str(&format!(
            "<rect{class} x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{when}: {} not as declared{dark}</title></rect>",
            as_f64(index) * step,
            110.0 - height,
            (step * 0.85).max(0.5),
            night.bad,
        ));
        rows.push_str(&format!(
            "<tr><th scope=\"row\">{when}</th><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            night.bad,
            night.dark,
            escaped(&night.run)
        ));
    }
    let ends = |night: Option<&Night>| night.map_or_else(String::new, |night| escaped(&night.when));
    format!(
        "<svg class=\"plot\" viewBox=\"0 0 1000 128\" preserveAspectRatio=\"none\" role=\"img\" aria-labelledby=\"over-time\">{bars}</svg>
<p class=\"dim\">{} to {}; the highest bar is {most} not as declared</p>
<details><summary>as a table</summary><div class=\"scroll\"><table class=\"plain\"><thead><tr><th scope=\"col\">run</th><th scope=\"col\">not as declared</th><th scope=\"col\">hosts not reached</th><th scope=\"col\">id</th></tr></thead><tbody>{rows}</tbody></table></div></details>",
        ends(page.nights.first()),
        ends(page.nights.last()),
    )
}

#[expect(clippy::cast_precision_loss, reason = "numbers of nights and findings")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

fn filters(page: &Page) -> String {
    let roles: String =
        page.roles.iter().enumerate().map(|(index, role)| format!("<option value=\"{index}\">{}</option>", role_name(role))).collect();
    let states: String = State::ALL.iter().map(|state| format!("<option value=\"{}\">{}</option>", number(*state), state.word())).collect();
    let newest = page.nights.len().saturating_sub(1);
    format!(
        "<form id=\"filters\" hidden>
<label>Host<input id=\"f-host\" type=\"search\" autocomplete=\"off\"></label>
<label>Role<select id=\"f-role\"><option value=\"\">all</option>{roles}</select></label>
<label>State<select id=\"f-state\"><option value=\"\">any</option>{states}</select></label>
<label class=\"tick\"><input id=\"f-bad\" type=\"checkbox\">only what is not fine</label>
<label>Run<input id=\"f-night\" type=\"range\" min=\"0\" max=\"{newest}\" value=\"{newest}\"></label>
<p class=\"dim\"><span id=\"shown\" role=\"status\"></span>; <span id=\"night-said\"></span></p>
</form>"
    )
}

fn legend() -> String {
    let signs = ["·", "+1", "1", "?1", "!1", "×"];
    let items: String = State::ALL
        .iter()
        .zip(signs)
        .map(|(state, sign)| format!("<li><span class=\"k{}\">{sign}</span>{}</li>", number(*state), state.word()))
        .collect();
    format!("<ul class=\"legend\" aria-label=\"legend\">{items}</ul>")
}

fn role_name(role: &str) -> String {
    if role.is_empty() { "(tasks)".to_owned() } else { escaped(role) }
}

fn matrix(page: &Page) -> String {
    let heads: String = page.roles.iter().map(|role| format!("<th scope=\"col\">{}</th>", role_name(role))).collect();
    let mut rows = String::new();
    for (host, row) in page.hosts.iter().zip(page.cells.chunks(page.roles.len().max(1))) {
        rows.push_str(&format!("<tr><th scope=\"row\">{}</th>", escaped(host)));
        for runs in row {
            let state = last(runs);
            let word = State::ALL.get(state as usize).map_or("", |state| state.word());
            rows.push_str(&format!("<td class=\"s{state}\" tabindex=\"-1\">{word}</td>"));
        }
        rows.push_str("</tr>\n");
    }
    format!(
        "<table class=\"matrix\" id=\"matrix\"><caption>each cell is a role on a host; arrow keys move, Enter shows what is behind it</caption>
<thead><tr><th class=\"corner\" scope=\"col\">host</th>{heads}</tr></thead>
<tbody>
{rows}</tbody></table>"
    )
}

fn times(what: &str, times: &[(String, f64, f64)]) -> String {
    let rows: String = times
        .iter()
        .take(25)
        .map(|(name, last, median)| {
            format!("<tr><th scope=\"row\">{}</th><td class=\"n\">{last:.1} s</td><td class=\"n\">{median:.1} s</td></tr>", role_name(name))
        })
        .collect();
    format!(
        "<div class=\"scroll\"><table class=\"plain\"><thead><tr><th scope=\"col\">{what}</th><th scope=\"col\">last</th><th scope=\"col\">median</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fleet in which some cells change now and then.
    fn fleet(hosts: usize, roles: usize, nights: usize) -> Page {
        let mut page = Page { title: "<b>fleet & co</b>".to_owned(), ..Page::default() };
        page.hosts = (0..hosts).map(|number| format!("host-{number:03}.example")).collect();
        page.roles = (0..roles).map(|number| format!("role_{number}")).collect();
        page.nights = (0..nights)
            .map(|number| Night {
                run: format!("20260101-000000-{number:06}"),
                when: format!("2026-01-01 {number}"),
                bad: number % 7,
                ..Night::default()
            })
            .collect();
        page.failures = vec![None; hosts];
        for cell in 0..hosts * roles {
            let mut runs = Vec::new();
            for night in 0..nights {
                let drifts = (cell * 31 + night / 3) % 11 == 0;
                push(&mut runs, if drifts { 2 } else { 0 });
                if drifts && night % 9 == 0 {
                    page.findings.push(Span {
                        h: cell / roles,
                        r: cell % roles,
                        what: format!("file[/etc/some/where/{cell}]"),
                        severity: "config".to_owned(),
                        state: 2,
                        summary: "</script><script>alert(1)</script> content: (differs) -> (300 bytes); mode: 0644 -> 0600".to_owned(),
                        diff: None,
                        from: night,
                        to: night + 2,
                    });
                }
            }
            page.cells.push(runs);
        }
        page
    }

    #[test]
    fn a_fleet_of_ninety_nights_stays_small() {
        let page = render(&fleet(200, 30, 90));
        assert!(page.len() < 5 << 20, "{} bytes", page.len());
    }

    #[test]
    fn nothing_that_was_observed_becomes_markup_and_nothing_is_fetched() {
        let page = render(&fleet(3, 2, 20));
        assert!(page.contains("&lt;b&gt;fleet &amp; co&lt;/b&gt;"));
        assert_eq!(page.matches("</script>").count(), 2, "only our own scripts end");
        assert!(!page.contains("<script>alert"));
        for word in ["http://", "https://", "src=", "@import", "url(", "<link"] {
            assert!(!page.contains(word), "{word}");
        }
        let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["cells"].as_array().unwrap().len(), 6);
        assert_eq!(data["nights"].as_array().unwrap().len(), 20);
    }

    #[test]
    fn run_lengths() {
        let mut runs = Vec::new();
        for state in [0, 0, 2, 2, 2, 0] {
            push(&mut runs, state);
        }
        assert_eq!(runs, [0, 2, 2, 3, 0, 1]);
        assert_eq!(last(&runs), 0);
    }
}
