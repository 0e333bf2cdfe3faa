//! Mail through SES (<https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>).

use aws_sdk_sesv2::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::send_email::SendEmailError,
    types::{Body, Content, Destination, EmailContent, Message},
};
use aws_smithy_types::error::operation::BuildError;
use farebox_aws::chain;

use crate::{Outcome, templates::Mail};

/// The longest address there is (RFC 5321: 64 before the `@`, 255 behind it).
const ADDRESS_BYTES_MAX: usize = 320;

/// Sends a mail to one address. SES has no key against sending twice: once it took a mail, only our own note of it does.
pub(crate) async fn send(ses: &Client, from: &str, configuration_set: Option<&str>, to: &str, mail: Mail) -> Outcome {
    if !is_address(to) {
        return Outcome::GaveUp("the customer's e-mail address is none".to_owned());
    }
    let content = match content(mail) {
        Ok(content) => content,
        Err(error) => return Outcome::GaveUp(error.to_string()),
    };
    let sent = ses
        .send_email()
        .from_email_address(from)
        .destination(Destination::builder().to_addresses(to).build())
        .content(content)
        .set_configuration_set_name(configuration_set.map(str::to_owned))
        .send()
        .await;
    match sent {
        Ok(_) => Outcome::Sent,
        Err(error) => judge(&error, to),
    }
}

/// Caught here because SES takes several addresses where it is given a list, and answers what is none with an error about
/// the whole request.
fn is_address(to: &str) -> bool {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | ';' | '<' | '>');
    let parts = to.rsplit_once('@');
    to.len() <= ADDRESS_BYTES_MAX
        && !to.contains(is_odd)
        && parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

fn content(mail: Mail) -> Result<EmailContent, BuildError> {
    let utf8 = |data: String| Content::builder().data(data).charset("UTF-8").build();
    let body = Body::builder().text(utf8(mail.text)?).html(utf8(mail.html)?).build();
    let message = Message::builder().subject(utf8(mail.subject)?).body(body).build();
    Ok(EmailContent::builder().simple(message).build())
}

/// A refusal of this very mail is final. One of our account, our sender or our pace is not: it holds for every mail, passes
/// when the operator has settled it, and waits in the dead-letter queue until then.
fn judge(error: &SdkError<SendEmailError>, to: &str) -> Outcome {
    let Some(service) = error.as_service_error() else {
        return Outcome::Retry(format!("SES could not be asked: {}", chain(error)));
    };
    let code = service.code().unwrap_or("no error code");
    // SES quotes addresses, and this goes to the log.
    let message = service
        .message()
        .unwrap_or("no message")
        .replace(to, "the customer's address");
    // "Email address is not verified. The following identities failed the check in region ..." comes as MessageRejected:
    // in the sandbox for every recipient, outside of it for our own sender.
    let is_ours = message.contains("not verified");
    let is_about_this_mail = service.is_message_rejected() || service.is_bad_request_exception();
    let reason = format!("SES: {code}: {message}");
    if is_about_this_mail && !is_ours {
        Outcome::GaveUp(reason)
    } else {
        Outcome::Retry(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn what_is_no_single_address_is_not_sent_to() {
        for address in ["a@b.example", "a+b.c@d", "\"a@b\"@c.example", "a@xn--bcher-kva.example"] {
            assert!(is_address(address), "{address}");
        }
        let long = format!("{}@b.example", "a".repeat(320));
        for address in [
            "",
            "a",
            "@b.example",
            "a@",
            "a@b.example, c@d.example",
            "a@b.example;c@d.example",
            "A <a@b.example>",
            "a@b.example\r\nBcc: c@d.example",
            "a b@c.example",
            &long,
        ] {
            assert!(!is_address(address), "{address}");
        }
    }
}
