//! What a bucket's refusals mean, and the way out of each. The server's words are shown in part only: a refusal may
//! repeat what was signed.

use object_store::Error;

/// What stands behind a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bucket does not exist.
    NoBucket,
    /// It is in another region, or at another endpoint.
    Region,
    /// There are no usable credentials.
    Credentials,
    /// The session that the credentials belong to has ended.
    Expired,
    /// This machine's clock is wrong.
    Clock,
    /// The credentials may not do this.
    Permission,
    /// The server cannot be reached, or does not answer.
    Unreachable,
    /// Anything else that the server refuses.
    Refused,
}

/// A request to a bucket that failed for good.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {place}: {reason}; {advice}")]
pub struct BucketError {
    /// What stands behind it.
    pub fault: Fault,
    /// What was being done.
    pub doing: &'static str,
    /// To what: the bucket and the key.
    pub place: String,
    /// Why not.
    reason: String,
    /// The way out.
    advice: String,
    /// The status of the answer, if there was one.
    status: Option<u16>,
}

impl BucketError {
    /// Explains an error of the store.
    pub(super) fn new(doing: &'static str, place: String, error: &Error) -> Self {
        let text = chain(error);
        // The answer to a deletion of many is told in other words.
        let code = between(&text, "<Code>", "</Code>").or_else(|| between(&text, "(code: ", ")"));
        let (fault, reason) = classify(error, code, &text);
        let advice = advice(fault, doing, &place, &text);
        Self { fault, doing, place, reason, advice, status: status(&text) }
    }

    /// Whether something below the bucket was not there, such as an upload in parts that has ended.
    pub(super) fn is_absence(&self) -> bool {
        self.fault == Fault::Refused && self.status == Some(404)
    }

    /// Whether another try would not help: whoever is refused now is refused again, but for the statuses that speak of
    /// the moment (RFC 9110 §15.5; 409 as S3 uses it).
    pub(super) fn is_final(&self) -> bool {
        match self.fault {
            Fault::Unreachable => false,
            Fault::Refused => self
                .status
                .is_some_and(|status| (400..500).contains(&status) && !matches!(status, 408 | 409 | 412 | 425 | 429)),
            _ => true,
        }
    }

    /// The way out alone.
    pub fn advice(&self) -> &str {
        &self.advice
    }

    /// What went wrong, without the way out.
    pub fn finding(&self) -> String {
        format!("cannot {} {}: {}", self.doing, self.place, self.reason)
    }

    /// An error that no request brought.
    pub(super) fn because(doing: &'static str, place: String, reason: &str, advice: &str) -> Self {
        Self { fault: Fault::Refused, doing, place, reason: reason.to_owned(), advice: advice.to_owned(), status: None }
    }
}

/// An error with its sources, once each.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let rest = &text[text.find(open)? + open.len()..];
    Some(&rest[..rest.find(close)?])
}

/// The status of an answer, as the store's errors write it.
fn status(text: &str) -> Option<u16> {
    let rest = &text[text.find("status code: ")? + "status code: ".len()..];
    rest.get(..3)?.parse().ok()
}

fn classify(error: &Error, code: Option<&str>, text: &str) -> (Fault, String) {
    let said = |words: &str| {
        let message = between(text, "<Message>", "</Message>").map(|message| printable(message, 200));
        match (code, message) {
            (Some(code), Some(message)) => format!("{words} ({}: {message})", printable(code, 60)),
            (Some(code), None) => format!("{words} ({})", printable(code, 60)),
            (None, _) => match status(text) {
                Some(status) => format!("{words} (status {status})"),
                None => words.to_owned(),
            },
        }
    };
    match code.unwrap_or_default() {
        "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName" | "ContainerBeingDeleted" => {
            return (Fault::NoBucket, said("there is no such bucket"));
        }
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "TemporaryRedirect" => {
            return (Fault::Region, said("the bucket is in another region"));
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired" => {
            return (Fault::Expired, said("the credentials' session has expired"));
        }
        // The client tells a denied list from no other failure.
        "AccessDenied" | "AuthorizationPermissionMismatch" => {
            return (Fault::Permission, said("the credentials may not do this"));
        }
        "RequestTimeTooSkewed" | "RequestTimeSkewed" => {
            return (Fault::Clock, said("the server's clock and this machine's differ too much"));
        }
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "InvalidClientTokenId"
        | "InvalidSecurity"
        | "AuthenticationFailed"
        | "NoAuthenticationInformation"
        | "AuthenticationRequired" => {
            // The message may repeat what was signed.
            let reason =
                format!("the server does not accept the credentials ({})", printable(code.unwrap_or_default(), 60));
            return (Fault::Credentials, reason);
        }
        _ => {}
    }
    if text.contains("normally indicates an incorrectly configured region") || matches!(status(text), Some(301 | 307)) {
        return (Fault::Region, said("the bucket is in another region, or at another endpoint"));
    }
    match error {
        Error::PermissionDenied { .. } => return (Fault::Permission, said("the credentials may not do this")),
        Error::Unauthenticated { .. } => {
            return (Fault::Credentials, said("the server does not accept the credentials"));
        }
        Error::NotFound { .. } => return (Fault::Refused, said("it is not there")),
        _ if matches!(code, Some("AccessDenied" | "AllAccessDisabled" | "AccountProblem")) => {
            return (Fault::Permission, said("the credentials may not do this"));
        }
        _ => {}
    }
    let lower = text.to_lowercase();
    if lower.contains("169.254.169.254") || lower.contains("169.254.170.2") || lower.contains("/metadata/identity") {
        return (Fault::Credentials, "no credentials were found, and this machine has no role".into());
    }
    if status(text).is_none() {
        if lower.contains("metadata")
            || lower.contains("169.254.169.254")
            || lower.contains("missing") && lower.contains("key")
        {
            return (Fault::Credentials, "no credentials were found".into());
        }
        if lower.contains("certificate") {
            return (Fault::Unreachable, "its certificate is not trusted".into());
        }
        if lower.contains("dns") || lower.contains("name or service") || lower.contains("lookup") {
            return (Fault::Unreachable, "the server's name cannot be resolved".into());
        }
        if lower.contains("connect") {
            return (Fault::Unreachable, "the server cannot be reached".into());
        }
        if lower.contains("timed out") || lower.contains("timeout") {
            return (Fault::Unreachable, "the server did not answer in time".into());
        }
        if lower.contains("error sending request") || lower.contains("connection") || lower.contains("body") {
            return (Fault::Unreachable, "the connection broke".into());
        }
    }
    (
        Fault::Refused,
        said(if status(text).is_some_and(|status| status >= 500) { "the server failed" } else { "the server refused" }),
    )
}

fn advice(fault: Fault, doing: &str, place: &str, text: &str) -> String {
    match fault {
        Fault::NoBucket => "check the name in --archive, and make the bucket first".into(),
        Fault::Region => match between(text, "<Region>", "</Region>") {
            Some(region) => format!("set AWS_REGION, or `region` under [s3], to {:?}", printable(region, 40)),
            None => match between(text, "<Endpoint>", "</Endpoint>") {
                Some(endpoint) => format!("it is at {:?}: set its region or endpoint", printable(endpoint, 120)),
                None => "set AWS_REGION (or `region` under [s3]) to the bucket's region, or the endpoint to its server"
                    .into(),
            },
        },
        Fault::Expired => "fetch fresh credentials and run it again".into(),
        Fault::Clock => "set this machine's clock (timedatectl set-ntp true) and run it again".into(),
        Fault::Credentials if place.starts_with("az://") => "check AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY, or what is set in their place; see the README's part on buckets".into(),
        Fault::Credentials if place.starts_with("gs://") => "check GOOGLE_APPLICATION_CREDENTIALS, or what is set in its place; see the README's part on buckets".into(),
        Fault::Credentials => {
            "set them in the environment (such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), name a profile, or run \
             on a machine with a role; see the README's part on buckets"
                .into()
        }
        Fault::Permission if place.starts_with("az://") => "check the key, or give the identity the role Storage Blob Data Contributor on the container".into(),
        Fault::Permission if place.starts_with("gs://") => "give the account the role Storage Object User on the bucket".into(),
        Fault::Permission => match doing {
            "list" => "grant the credentials leave to list the bucket (s3:ListBucket)".into(),
            // Without the second, S3 calls a missing object forbidden.
            "read" | "look at" => {
                "grant them leave to read objects (s3:GetObject) and to list the bucket (s3:ListBucket)".into()
            }
            "delete" => "grant them leave to delete objects (s3:DeleteObject)".into(),
            _ => "they are read-only: grant them leave to write objects (s3:PutObject)".into(),
        },
        Fault::Unreachable => "check the endpoint, the network and `http.ca_file`, and run it again".into(),
        Fault::Refused => "run `jellyjar doctor` to see what works; nothing that was stored is lost".into(),
    }
}

/// A server's words, on one line and of bounded length.
fn printable(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn refusals_name_their_cause_and_the_way_out() {
        let denied = || Error::PermissionDenied { path: "k".into(), source: "x".into() };
        for (error, doing, fault, way_out) in [
            (
                generic("status code: 404 Not Found: <Error><Code>NoSuchBucket</Code>"),
                "list",
                Fault::NoBucket,
                "--archive",
            ),
            (
                generic("status code: 400: <Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region>"),
                "list",
                Fault::Region,
                "eu-central-1",
            ),
            (generic("status code: 400: <Code>ExpiredToken</Code>"), "list", Fault::Expired, "fresh credentials"),
            (generic("status code: 403: <Code>RequestTimeTooSkewed</Code>"), "list", Fault::Clock, "clock"),
            (denied(), "list", Fault::Permission, "s3:ListBucket"),
            (denied(), "write", Fault::Permission, "s3:PutObject"),
            (generic("error trying to connect: tcp connect error"), "list", Fault::Unreachable, "endpoint"),
        ] {
            let explained = BucketError::new(doing, "s3://b/x".into(), &error);
            assert_eq!(explained.fault, fault, "{explained}");
            assert!(explained.to_string().contains(way_out), "{explained}");
            assert!(explained.to_string().starts_with(&format!("cannot {doing} s3://b/x: ")), "{explained}");
        }
    }

    #[test]
    fn what_was_signed_is_not_repeated() {
        let text = "status code: 403: <Code>SignatureDoesNotMatch</Code><Message>sent AKIAHUSH hush</Message>";
        let error = BucketError::new("write", "s3://b/x".into(), &generic(text));
        assert!(!error.to_string().to_lowercase().contains("hush"), "{error}");
    }
}
