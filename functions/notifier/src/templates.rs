//! The texts of the mails: files that people can change.
//!
//! `<kind>.txt` starts with `Subject: ...` and holds the plain text, `<kind>.html` the same for eyes. In both, `{{name}}` is a
//! value (escaped in HTML), `{{#name}}…{{/name}}` is there only if the value is, and `{{^name}}…{{/name}}` only if it is not,
//! as in <https://mustache.github.io/mustache.5.html>. A name that the kind does not have, a section that is not closed and a
//! file that belongs to no mail are errors when the function starts, not when a customer is to be told something.

use std::{borrow::Cow, path::Path};

use crate::words::{COMMON, KINDS, Values};

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mail template {file}: {problem}")]
pub struct TemplateError {
    /// The file, or the directory.
    pub file: String,
    /// What is wrong, with the line.
    pub problem: String,
}

/// A mail, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mail {
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
}

/// One template per kind of mail.
#[derive(Debug)]
pub(crate) struct Templates(Vec<(&'static str, Template)>);

#[derive(Debug)]
struct Template {
    subject: Vec<Part>,
    text: Vec<Part>,
    html: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(&'static str),
    Section {
        name: &'static str,
        /// Whether it is for a value that is there, or for one that is not.
        is_for_some: bool,
        parts: Vec<Part>,
    },
}

macro_rules! built_in {
    ($($file:literal),+ $(,)?) => {
        &[$(($file, include_str!(concat!("../templates/", $file)))),+]
    };
}

const BUILT_IN: &[(&str, &str)] = built_in![
    "key_expiring.html",
    "key_expiring.txt",
    "payment_failed.html",
    "payment_failed.txt",
    "quota_threshold.html",
    "quota_threshold.txt",
    "spend_cap.html",
    "spend_cap.txt",
    "trial_ending.html",
    "trial_ending.txt",
];

impl Templates {
    /// Reads every template: a file of the directory where there is one, else the built-in text.
    ///
    /// # Errors
    /// [`TemplateError`] for the first thing that is wrong.
    pub(crate) fn load(directory: Option<&Path>) -> Result<Self, TemplateError> {
        if let Some(directory) = directory {
            refuse_strangers(directory)?;
        }
        let template = |&(kind, names): &(&'static str, &'static [&'static str])| {
            let names: Vec<&'static str> = names.iter().chain(&COMMON).copied().collect();
            let text = format!("{kind}.txt");
            let html = format!("{kind}.html");
            let template = Template::parse(&source(directory, &text)?, &source(directory, &html)?, &names);
            let template = template.map_err(|(is_html, problem)| TemplateError {
                file: if is_html { html } else { text },
                problem,
            })?;
            Ok((kind, template))
        };
        KINDS.iter().map(template).collect::<Result<_, _>>().map(Self)
    }

    /// The mail of a kind; `None` for a kind that is not told by mail.
    pub(crate) fn render(&self, kind: &str, values: &Values) -> Option<Mail> {
        let (_, template) = self.0.iter().find(|(known, _)| *known == kind)?;
        Some(Mail {
            subject: render(&template.subject, values, |value| value.into()),
            text: render(&template.text, values, |value| value.into()),
            html: render(&template.html, values, escape),
        })
    }
}

impl Template {
    /// On failure, whether it was the HTML.
    fn parse(text: &str, html: &str, names: &[&'static str]) -> Result<Self, (bool, String)> {
        let in_text = |problem: String| (false, problem);
        let (subject, text) = text.split_once('\n').unwrap_or((text, ""));
        let subject = subject.trim_end().strip_prefix("Subject: ");
        let subject = subject.ok_or_else(|| in_text("line 1: it must start with \"Subject: \"".to_owned()))?;
        Ok(Self {
            subject: parse(subject, 1, names).map_err(in_text)?,
            text: parse(text.trim_start_matches(['\r', '\n']), 2, names).map_err(in_text)?,
            html: parse(html, 1, names).map_err(|problem| (true, problem))?,
        })
    }
}

fn source(directory: Option<&Path>, file: &str) -> Result<Cow<'static, str>, TemplateError> {
    let path = directory
        .map(|directory| directory.join(file))
        .filter(|path| path.exists());
    if let Some(path) = path {
        let text = std::fs::read_to_string(&path).map_err(|e| TemplateError {
            file: path.display().to_string(),
            problem: e.to_string(),
        })?;
        return Ok(text.into());
    }
    let built_in = BUILT_IN.iter().find(|(known, _)| *known == file);
    built_in.map(|(_, text)| (*text).into()).ok_or_else(|| TemplateError {
        file: file.to_owned(),
        problem: "there is none".to_owned(),
    })
}

/// A file whose name is misspelt would be passed over in silence.
fn refuse_strangers(directory: &Path) -> Result<(), TemplateError> {
    let error = |file: String, problem: String| TemplateError { file, problem };
    let unreadable = |e: std::io::Error| error(directory.display().to_string(), e.to_string());
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        let is_template = name.ends_with(".txt") || name.ends_with(".html");
        if is_template && !BUILT_IN.iter().any(|(known, _)| *known == name) {
            let known: Vec<&str> = BUILT_IN.iter().map(|(known, _)| *known).collect();
            return Err(error(
                name.into_owned(),
                format!("it belongs to no mail; there are {}", known.join(", ")),
            ));
        }
    }
    Ok(())
}

/// A section that is not closed yet.
struct Open {
    name: &'static str,
    is_for_some: bool,
    line: usize,
    /// What came before it.
    before: Vec<Part>,
}

fn parse(source: &str, first_line: usize, names: &[&'static str]) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut rest = source;
    while let Some(start) = rest.find("{{") {
        let line = first_line + source[..source.len() - rest.len() + start].matches('\n').count();
        let (before, tag) = rest.split_at(start);
        let Some(end) = tag.find("}}") else {
            return Err(format!("line {line}: \"{{{{\" without \"}}}}\""));
        };
        let (inside, after) = (&tag[2..end], &tag[end + 2..]);
        let sign = inside.chars().next().filter(|c| matches!(c, '#' | '^' | '/'));
        let name = inside.trim_start_matches(['#', '^', '/']).trim();
        let Some(&name) = names.iter().find(|known| **known == name) else {
            return Err(format!(
                "line {line}: there is no {{{{{name}}}}}; there are {}",
                names.join(", ")
            ));
        };
        // A line that holds nothing but the border of a section is not part of the text.
        let (before, after) = if sign.is_some() {
            without_line(source, before, after)
        } else {
            (before, after)
        };
        push_text(&mut parts, before);
        rest = after;
        match sign {
            None => parts.push(Part::Value(name)),
            Some('/') => {
                let Some(section) = open.pop().filter(|section| section.name == name) else {
                    return Err(format!("line {line}: {{{{/{name}}}}} closes nothing"));
                };
                let inner = std::mem::replace(&mut parts, section.before);
                parts.push(Part::Section {
                    name,
                    is_for_some: section.is_for_some,
                    parts: inner,
                });
            }
            Some(sign) => open.push(Open {
                name,
                is_for_some: sign == '#',
                line,
                before: std::mem::take(&mut parts),
            }),
        }
    }
    if let Some(section) = open.pop() {
        return Err(format!(
            "line {}: the section {{{{{}}}}} is not closed",
            section.line, section.name
        ));
    }
    push_text(&mut parts, rest);
    Ok(parts)
}

/// Drops the blanks before and the line's end after a border that stands alone on its line.
fn without_line<'a>(source: &str, before: &'a str, after: &'a str) -> (&'a str, &'a str) {
    let head = before.trim_end_matches([' ', '\t']);
    let tail = after.trim_start_matches([' ', '\t', '\r']);
    // What precedes the tag in the source, not only since the tag before it.
    let tag_at = source.len() - after.len();
    let line_start = source[..tag_at].rfind("{{").map_or("", |tag| &source[..tag]);
    let is_line_start =
        line_start.trim_end_matches([' ', '\t']).is_empty() || line_start.trim_end_matches([' ', '\t']).ends_with('\n');
    match tail.strip_prefix('\n') {
        Some(tail) if is_line_start => (head, tail),
        None if is_line_start && tail.is_empty() => (head, tail),
        _ => (before, after),
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

fn render(parts: &[Part], values: &Values, escape: fn(&str) -> Cow<'_, str>) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(fixed) => text.push_str(fixed),
            Part::Value(name) => text.push_str(&escape(values.get(name))),
            Part::Section {
                name,
                is_for_some,
                parts,
            } => {
                if values.get(name).is_empty() != *is_for_some {
                    text.push_str(&render(parts, values, escape));
                }
            }
        }
    }
    text
}

/// Also safe inside of a quoted attribute.
fn escape(value: &str) -> Cow<'_, str> {
    if !value.contains(['&', '<', '>', '"', '\'']) {
        return value.into();
    }
    let mut text = String::with_capacity(value.len() + 16);
    for c in value.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            c => text.push(c),
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use farebox_core::{
        alert::{AlertMessage, Occasion, Recipient, VERSION},
        money::{Currency, Money},
        time::{Period, Timestamp},
    };

    use super::{BUILT_IN, KINDS, Mail, Template, TemplateError, Templates, parse, render};
    use crate::words::{COMMON, Values};

    const DECEMBER: Period = Period {
        start: 1_796_083_200,
        end: 1_798_761_600,
    };

    fn message(occasion: Occasion) -> AlertMessage {
        AlertMessage {
            v: VERSION,
            id: "a".to_owned(),
            at: Timestamp::from_s(DECEMBER.start + 86_400),
            customer: None,
            occasion,
        }
    }

    fn recipient(name: &str) -> Recipient {
        Recipient {
            id: "acme".to_owned().try_into().unwrap(),
            name: name.to_owned(),
            email: Some("dev@acme.example".to_owned()),
            webhook: None,
        }
    }

    fn mail(occasion: Occasion, portal_url: Option<&str>) -> Mail {
        let templates = Templates::load(None).unwrap_or_else(|e| panic!("{e}"));
        let message = message(occasion);
        let values = Values::of(&message, &recipient("Acme & Söhne <GmbH>"), portal_url);
        let mail = templates.render(message.occasion.kind(), &values);
        mail.unwrap_or_else(|| panic!("{} is told by mail", message.occasion.kind()))
    }

    fn shown(occasion: Occasion) -> String {
        let Mail { subject, text, html } = mail(occasion, Some("https://portal.example/?a=1&b=2"));
        format!("Subject: {subject}\n\n{text}\n=====\n{html}")
    }

    fn quota(percent: u64, at_quota: &str) -> Occasion {
        Occasion::QuotaThreshold {
            tier: "pro".to_owned(),
            meter: "api_calls".to_owned(),
            percent,
            units: 500 * percent,
            included: 50_000,
            period: DECEMBER,
            at_quota: at_quota.to_owned(),
        }
    }

    fn cap(percent: u64) -> Occasion {
        Occasion::SpendCap {
            tier: "pro".to_owned(),
            meter: "tokens".to_owned(),
            percent,
            units: 1_000 * percent,
            cap_units: 100_000,
            cap: Money(10_000),
            currency: Currency::USD,
            period: DECEMBER,
        }
    }

    fn payment(next_attempt: Option<u64>, pay_url: Option<&str>, policy: &str, policy_from: u64) -> Occasion {
        Occasion::PaymentFailed {
            invoice: "in_1".to_owned(),
            amount_due: 4_978,
            currency: "usd".to_owned(),
            attempts: 2,
            next_attempt,
            pay_url: pay_url.map(str::to_owned),
            policy: policy.to_owned(),
            policy_from,
        }
    }

    fn trial() -> Occasion {
        Occasion::TrialEnding {
            tier: "pro".to_owned(),
            trial_end: DECEMBER.end,
        }
    }

    fn key(name: &str) -> Occasion {
        Occasion::KeyExpiring {
            name: name.to_owned(),
            prefix: "acme_live_Ab3d".to_owned(),
            last_four: "x9Yz".to_owned(),
            expires: DECEMBER.end,
        }
    }

    #[test]
    fn every_mail_reads_well() {
        insta::assert_snapshot!("quota_80_overage", shown(quota(80, "overage")));
        insta::assert_snapshot!("quota_80_throttle", shown(quota(80, "throttle")));
        insta::assert_snapshot!("quota_80_block", shown(quota(80, "block")));
        insta::assert_snapshot!("quota_100_throttle", shown(quota(100, "throttle")));
        insta::assert_snapshot!("quota_100_block", shown(quota(100, "block")));
        insta::assert_snapshot!("quota_120_overage", shown(quota(120, "overage")));
        insta::assert_snapshot!("spend_cap_80", shown(cap(80)));
        insta::assert_snapshot!("spend_cap_100", shown(cap(100)));
        let link = Some("https://invoice.stripe.example/i/1?s=ap");
        let (soon, later) = (Some(DECEMBER.start + 3 * 86_400), DECEMBER.start + 7 * 86_400);
        insta::assert_snapshot!(
            "payment_failed_throttle_ahead",
            shown(payment(soon, link, "throttle", later))
        );
        insta::assert_snapshot!("payment_failed_block_ahead", shown(payment(soon, link, "block", later)));
        insta::assert_snapshot!(
            "payment_failed_block_now",
            shown(payment(None, link, "block", DECEMBER.start))
        );
        insta::assert_snapshot!(
            "payment_failed_throttle_now",
            shown(payment(None, None, "throttle", DECEMBER.start))
        );
        insta::assert_snapshot!("payment_failed_keep", shown(payment(None, None, "keep", later)));
        insta::assert_snapshot!("trial_ending", shown(trial()));
        insta::assert_snapshot!("key_expiring", shown(key("build server")));
    }

    #[test]
    fn a_mail_without_a_portal_or_a_key_s_name_has_no_holes() {
        for occasion in [
            quota(80, "?"),
            cap(80),
            payment(None, None, "keep", 0),
            trial(),
            key(""),
        ] {
            let Mail { subject, text, html } = mail(occasion, None);
            assert!(!subject.contains('\n') && !subject.contains("  "), "{subject}");
            assert!(
                !text.contains("\n\n\n") && !text.contains(": \n") && !text.contains("\"\""),
                "{text}"
            );
            assert!(!text.contains("portal") && !html.contains("<a "), "{text}{html}");
        }
    }

    #[test]
    fn values_can_not_break_out_of_html_or_lines() {
        let evil = "<script>\"'&\r\nBcc: x";
        let occasion = Occasion::KeyExpiring {
            name: evil.to_owned(),
            prefix: evil.to_owned(),
            last_four: evil.to_owned(),
            expires: 0,
        };
        let Mail { subject, text, html } = mail(occasion, None);
        assert!(
            !html.contains("<script>") && html.contains("&lt;script&gt;&quot;&#39;&amp;"),
            "{html}"
        );
        assert!(!subject.contains(['\r', '\n']), "{subject}");
        assert!(!text.contains("\nBcc"), "{text}");
        // A link that is no web address is not offered.
        let payment = mail(payment(None, Some("javascript:alert(1)"), "keep", 0), None);
        assert!(!payment.html.contains("javascript") && !payment.text.contains("javascript"));
    }

    #[test]
    fn every_name_that_a_template_may_use_has_a_value_and_the_reverse() {
        for occasion in [
            quota(100, "block"),
            cap(80),
            payment(None, None, "keep", 0),
            trial(),
            key("k"),
        ] {
            let (_, names) = KINDS.iter().find(|(kind, _)| *kind == occasion.kind()).unwrap();
            let values = Values::of(&message(occasion), &recipient("Acme"), None);
            let mut expected: Vec<&str> = names.iter().chain(&COMMON).copied().collect();
            expected.sort_unstable();
            let mut names = values.names();
            names.sort_unstable();
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn the_operator_gets_no_template() {
        let occasion = Occasion::Operator {
            problem: "p".to_owned(),
            text: "t".to_owned(),
            details: [].into(),
        };
        let values = Values::of(&message(occasion), &recipient("Acme"), None);
        let templates = Templates::load(None).unwrap();
        assert_eq!(templates.render("operator", &values), None);
    }

    fn problem(source: &str) -> String {
        parse(source, 1, &["a", "b"])
            .err()
            .unwrap_or_else(|| panic!("it was taken: {source}"))
    }

    #[test]
    fn what_is_wrong_with_a_template_is_said_with_its_line() {
        assert_eq!(problem("x\n{{c}}"), "line 2: there is no {{c}}; there are a, b");
        assert_eq!(problem("{{#c}}{{/c}}"), "line 1: there is no {{c}}; there are a, b");
        assert_eq!(problem("{{ }}"), "line 1: there is no {{}}; there are a, b");
        assert_eq!(problem("{{a"), "line 1: \"{{\" without \"}}\"");
        assert_eq!(problem("{{/a}}"), "line 1: {{/a}} closes nothing");
        assert_eq!(
            problem("{{#a}}\n{{#b}}\n{{/a}}\n{{/b}}"),
            "line 3: {{/a}} closes nothing"
        );
        assert_eq!(problem("\n\n{{^a}}\n"), "line 3: the section {{a}} is not closed");
        let template = |text: &str, html: &str| Template::parse(text, html, &["a"]).err().unwrap();
        assert_eq!(
            template("Hello", ""),
            (false, "line 1: it must start with \"Subject: \"".to_owned())
        );
        assert_eq!(
            template("Subject: x\n\n{{c}}", "").1,
            "line 2: there is no {{c}}; there are a"
        );
        assert!(template("Subject: x", "{{c}}").0);
    }

    #[test]
    fn sections_are_there_or_not_and_their_borders_leave_no_lines() {
        let values = Values::of(&message(trial()), &recipient("Acme"), None);
        let names = ["customer", "portal_url", "tier"];
        let show = |source: &str| render(&parse(source, 1, &names).unwrap(), &values, |value| value.into());
        assert_eq!(show("{{#tier}}a{{/tier}}{{^tier}}b{{/tier}}"), "a");
        assert_eq!(
            show("{{#portal_url}}a{{/portal_url}}{{^portal_url}}b{{/portal_url}}"),
            "b"
        );
        assert_eq!(show("1\n  {{#tier}}  \n2\n{{/tier}}\r\n3"), "1\n2\n3");
        assert_eq!(show("1\n{{^tier}}\n2\n{{/tier}}\n3\n"), "1\n3\n");
        assert_eq!(
            show("{{#tier}}\n{{#customer}}\n{{tier}} {{customer}}\n{{/customer}}\n{{/tier}}"),
            "pro Acme\n"
        );
        assert_eq!(show("1 {{#tier}}\n2 {{/tier}}\n3"), "1 \n2 \n3");
        assert_eq!(show("{ {} }} {{ tier }}"), "{ {} }} pro");
    }

    struct Directory(PathBuf);

    impl Directory {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let directory = std::env::temp_dir().join(format!("farebox-{name}-{}", std::process::id()));
            fs::create_dir_all(&directory).unwrap();
            for (file, text) in files {
                fs::write(directory.join(file), text).unwrap();
            }
            Self(directory)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_directory_replaces_what_it_holds() {
        let text = "Subject: {{customer}}!\n\nBye, {{tier}}.\n";
        let directory = Directory::with("templates", &[("trial_ending.txt", text), ("logo.svg", "")]);
        let templates = Templates::load(Some(&directory.0)).unwrap();
        let values = Values::of(&message(trial()), &recipient("Acme"), None);
        let mail = templates.render("trial_ending", &values).unwrap();
        assert_eq!((mail.subject.as_str(), mail.text.as_str()), ("Acme!", "Bye, pro.\n"));
        assert!(mail.html.contains("your trial of pro"));
    }

    #[test]
    fn a_directory_that_is_wrong_fails_the_start() {
        let load = |name: &str, file: &str, text: &str| {
            let directory = Directory::with(name, &[(file, text)]);
            Templates::load(Some(&directory.0))
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default()
        };
        let error = load("unknown-name", "spend_cap.html", "<p>{{trial_end}}</p>");
        assert!(
            error.starts_with("mail template spend_cap.html: line 1: there is no {{trial_end}}"),
            "{error}"
        );
        let error = load("misspelt", "spend-cap.html", "");
        assert!(
            error.starts_with("mail template spend-cap.html: it belongs to no mail"),
            "{error}"
        );
        let error = Templates::load(Some(&PathBuf::from("/nowhere"))).err();
        assert!(matches!(error, Some(TemplateError { file, .. }) if file == "/nowhere"));
    }

    #[test]
    fn there_is_a_text_and_an_html_for_every_kind() {
        let mut files: Vec<String> = KINDS
            .iter()
            .flat_map(|(kind, _)| [format!("{kind}.html"), format!("{kind}.txt")])
            .collect();
        files.sort_unstable();
        let built_in: Vec<&str> = BUILT_IN.iter().map(|(file, _)| *file).collect();
        assert_eq!(built_in, files);
    }
}
