//! Reports that Stripe took and then could not count. Nothing but this event says so: the call itself was answered with 200.

use std::collections::BTreeMap;

use farebox_aws::{control::Cause, telemetry};
use farebox_billing::Error;
use farebox_core::ledger::{self, REPORT_WITHIN_S, Row, RowState};
use farebox_stripe::{Event, MeterErrorReport};

use crate::{Webhook, answer::Verdict};

/// Stripe takes nothing that is older, so nothing older can be reported wrongly now.
const ROWS_KEPT_S: u64 = REPORT_WITHIN_S + 86_400;

impl Webhook {
    /// Tells the operator what Stripe could not count, and parks the rows that it names.
    pub(crate) async fn uncounted(&self, event: &Event, cause: Cause<'_>) -> Result<Verdict, Error> {
        let books = &self.deps.books;
        let report = match books.stripe.thin_event(&event.id).await {
            Ok(fetched) => fetched.meter_errors,
            Err(error) if error.is_missing() => event.meter_errors.clone(),
            Err(error) => return Err(error.into()),
        };
        let report = report.unwrap_or_default();
        // The event is about at least one, whatever it says of it.
        telemetry::count("meter_errors_total", report.error_count.max(1));
        let samples = samples(&report);
        let rows = self.rows_named(&samples).await?;
        if let Some(row) = rows.iter().find(|(row, _)| row.state == RowState::Sending) {
            // Its report is still under way: the row must be reported before it can be parked.
            return Err(farebox_aws::Error::Contended(format!("row {}", row.0.key)).into());
        }
        let names: Vec<String> = rows.iter().map(|(row, _)| row.key.to_string()).collect();
        let mut details = vec![
            ("event", event.id.clone()),
            ("meter", event.object_id().unwrap_or("unknown").to_owned()),
            ("errors", by_code(&report)),
            ("identifiers", samples.keys().copied().collect::<Vec<_>>().join(" ")),
            ("rows", names.join(" ")),
        ];
        details.retain(|(_, value)| !value.is_empty());
        let text = format!(
            "Stripe could not count {} reports ({}). {} ledger rows are parked for it; the report names only samples, so \
             compare the whole period with `farebox reconcile`.",
            report.error_count,
            report.summary.as_deref().unwrap_or("without saying why"),
            rows.len(),
        );
        self.tell_operator("meter_error", format!("meter-{}", event.id), text, &details)
            .await?;
        for (row, code) in &rows {
            let why = format!("Stripe took the report and could not count it: {code}");
            let Some(report) = &row.report else { continue };
            let reopen = ledger::reopen(&report.identifier, &why);
            books.ledger.write(&row.key, reopen).await?;
        }
        self.mark(cause).await
    }

    /// The rows that were, or are being, reported under these identifiers, each with Stripe's code. A scan: this is rare.
    async fn rows_named<'a>(&self, samples: &BTreeMap<&'a str, &'a str>) -> Result<Vec<(Row, &'a str)>, Error> {
        if samples.is_empty() {
            return Ok(Vec::new());
        }
        let books = &self.deps.books;
        let named = named(samples);
        let oldest = books.now().s().saturating_sub(ROWS_KEPT_S);
        let (rows, _) = books.ledger.scan().await?;
        let named = rows.into_iter().filter_map(|row| {
            let code = *named.get(row.report.as_ref()?.identifier.as_str())?;
            let is_told = matches!(row.state, RowState::Sending | RowState::Reported);
            (is_told && row.key.bucket >= oldest).then_some((row, code))
        });
        Ok(named.collect())
    }
}

/// The identifiers that Stripe names, with its codes.
fn samples(report: &MeterErrorReport) -> BTreeMap<&str, &str> {
    let mut samples = BTreeMap::new();
    for error in &report.errors {
        let identifiers = error.samples.iter().filter_map(|sample| sample.identifier.as_deref());
        samples.extend(identifiers.map(|identifier| (identifier, error.code.as_str())));
    }
    samples
}

/// The identifiers that samples can mean: each is one, or one with `-` and a number behind it.
fn named<'a>(samples: &BTreeMap<&'a str, &'a str>) -> BTreeMap<&'a str, &'a str> {
    let shortened = samples.iter().filter_map(|(sample, code)| {
        let (identifier, number) = sample.rsplit_once('-')?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some((identifier, *code))
    });
    let mut named: BTreeMap<&str, &str> = shortened.collect();
    named.extend(samples);
    named
}

fn by_code(report: &MeterErrorReport) -> String {
    let counted = report
        .errors
        .iter()
        .map(|error| format!("{}: {}", error.code, error.error_count));
    counted.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::named;

    #[test]
    fn a_sample_may_have_a_number_behind_the_identifier() {
        let samples = BTreeMap::from([("row-7", "a"), ("row-7-1", "b"), ("other-x", "c"), ("-", "d")]);
        let expected = BTreeMap::from([
            ("row-7", "a"),
            ("row-7-1", "b"),
            ("row", "a"),
            ("other-x", "c"),
            ("-", "d"),
        ]);
        assert_eq!(named(&samples), expected);
    }
}
