//! Parked rows: what can be done about each, and doing it.

use farebox_aws::ledger::RowWrite;
use farebox_core::ledger::{self, ASK_AFTER_S, REPORT_WITHIN_S, Row, RowState};
use farebox_stripe::Meter;

use crate::{Books, Error, reconcile::minute_of, reporter::seconds};

/// What can be done about a parked row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Stripe has exactly its value: it is delivered.
    Settle,
    /// Stripe has nothing of it: it can be sent again.
    SendAgain,
    /// Nothing safe; what the operator can do, in a sentence.
    Operator(String),
}

/// A parked row, and what Stripe has in its minute.
#[derive(Clone, Debug)]
pub struct Parked {
    /// The row.
    pub row: Row,
    /// What Stripe has counted in its report's minute; absent if it can't be asked.
    pub in_stripe: Option<u64>,
    /// What can be done.
    pub remedy: Remedy,
}

impl Books {
    /// Every parked row, and what can be done about it.
    ///
    /// # Errors
    /// [`Error`] if the ledger or Stripe can't be read.
    pub async fn parked(&self) -> Result<Vec<Parked>, Error> {
        let (rows, _) = self.ledger.scan().await?;
        let meters = self.stripe.meters().await?;
        let mut parked = Vec::new();
        for row in rows.iter().filter(|row| row.state == RowState::Parked) {
            let in_stripe = self.in_minute_of(row, &meters).await?;
            parked.push(Parked {
                row: row.clone(),
                in_stripe: in_stripe.as_ref().ok().copied(),
                remedy: remedy(row, &rows, in_stripe, self.now().s()),
            });
        }
        parked.sort_by(|a, b| a.row.key.cmp(&b.row.key));
        Ok(parked)
    }

    /// Carries out a remedy. Says whether the row was still parked.
    ///
    /// # Errors
    /// [`Error::Table`] if the row can't be written; repeating is safe.
    pub async fn repair(&self, parked: &Parked) -> Result<bool, Error> {
        let (key, now) = (&parked.row.key, self.now());
        let write = match &parked.remedy {
            Remedy::Settle => ledger::settle(key, "found in Stripe by the operator's repair", now),
            Remedy::SendAgain => ledger::unpark(key, now),
            Remedy::Operator(_) => return Ok(false),
        };
        Ok(matches!(self.ledger.write(key, write).await?, RowWrite::Applied(_)))
    }

    /// What Stripe has counted in the minute of a row's report; or why it can't be asked, and what is to be done.
    async fn in_minute_of(&self, row: &Row, meters: &[Meter]) -> Result<Result<u64, String>, Error> {
        let Some(report) = &row.report else {
            return Ok(Err(
                "it has no report; that is a fault of the program: keep the row and report it".to_owned(),
            ));
        };
        let Some(meter) = meters.iter().find(|meter| meter.event_name == report.event_name) else {
            let name = &report.event_name;
            return Ok(Err(format!(
                "Stripe has no active meter {name}: reactivate it in the dashboard, then repair again"
            )));
        };
        let (start, customer) = (minute_of(report.timestamp), &report.stripe_customer);
        let sum = self
            .stripe
            .event_summary(&meter.id, customer, seconds(start), seconds(start + 60));
        match sum.await {
            Ok(sum) => Ok(Ok(sum)),
            Err(error) if error.is_missing() => Ok(Err(format!(
                "Stripe has no customer {customer}: bill {} units to whoever pays for {} by an invoice item",
                report.value, row.key.customer
            ))),
            Err(error) => Err(error.into()),
        }
    }
}

fn remedy(row: &Row, rows: &[Row], in_stripe: Result<u64, String>, now_s: u64) -> Remedy {
    let in_stripe = match in_stripe {
        Ok(in_stripe) => in_stripe,
        Err(why) => return Remedy::Operator(why),
    };
    let Some(report) = &row.report else {
        return Remedy::Operator("it has no report".to_owned());
    };
    let shares_minute = |other: &&Row| {
        other.key != row.key
            && other.report.as_ref().is_some_and(|of_other| {
                of_other.event_name == report.event_name
                    && of_other.stripe_customer == report.stripe_customer
                    && minute_of(of_other.timestamp) == minute_of(report.timestamp)
            })
    };
    let others: Vec<&Row> = rows.iter().filter(shares_minute).collect();
    if others.iter().any(|row| row.state != RowState::Reported) {
        return Remedy::Operator(
            "another row of the same minute is not settled yet: repair again when it is".to_owned(),
        );
    }
    let reported: u64 = others.iter().filter_map(|row| Some(row.report.as_ref()?.value)).sum();
    let (value, customer) = (report.value, &report.stripe_customer);
    if in_stripe == reported + value {
        return Remedy::Settle;
    }
    if in_stripe != reported {
        return Remedy::Operator(format!(
            "Stripe has {in_stripe} in its minute, where {reported} or {} would be right: find out in the dashboard who else \
             sent to the meter, and settle the rest with {customer} by an invoice item or a credit note",
            reported + value
        ));
    }
    let age_s = now_s.saturating_sub(row.key.bucket);
    if age_s > REPORT_WITHIN_S {
        return Remedy::Operator(format!(
            "Stripe has nothing of it and takes nothing that old: bill {value} units to {customer} by an invoice item"
        ));
    }
    if !others.is_empty() && age_s > ASK_AFTER_S {
        return Remedy::Operator(format!(
            "Stripe has nothing of it, but its minute is shared, so that a second sending could not be told apart: bill {value} \
             units to {customer} by an invoice item"
        ));
    }
    Remedy::SendAgain
}
