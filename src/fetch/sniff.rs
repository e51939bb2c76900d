//! Tells from the first bytes what a file is, and whether it is an error page.

use serde_json::Value;

/// The media type that the first bytes show; `None` where they show none.
pub fn sniff(head: &[u8]) -> Option<&'static str> {
    if head.is_empty() {
        return None;
    }
    if let Some(kind) = infer::get(head) {
        return Some(kind.mime_type());
    }
    let text = as_text(head)?;
    let start = trimmed(text);
    Some(if is_html(&start) {
        "text/html"
    } else if start.starts_with("<?xml") {
        "text/xml"
    } else if matches!(serde_json::from_str(text), Ok(Value::Object(_) | Value::Array(_))) {
        "application/json"
    } else if is_table(text) {
        "text/csv"
    } else {
        "text/plain"
    })
}

/// What kind of error page a body that begins with `head` and has `size_bytes` looks like; `None` if it does not.
pub(super) fn error_page(head: &[u8], size_bytes: u64) -> Option<&'static str> {
    let text = as_text(head)?;
    let start = trimmed(text);
    if is_html(&start) {
        return Some("HTML");
    }
    if start.starts_with("<?xml") || start.starts_with('<') {
        // S3, GCS and Azure: `<Error>`; some gateways: `<ErrorResponse …>`.
        let root = after_prolog(&start);
        let page = root.starts_with("<error") || root.starts_with("<html") || root.starts_with("<!doctype html");
        return page.then_some("XML");
    }
    if let Some(inside) = start.strip_prefix('{') {
        let spoken = if size_bytes == head.len() as u64 {
            serde_json::from_str::<Value>(text.trim_start_matches('\u{feff}'))
                .is_ok_and(|value| value.get("error").is_some() || value.get("errors").is_some())
        } else {
            let key = inside.trim_start();
            key.starts_with("\"error\"") || key.starts_with("\"errors\"")
        };
        return spoken.then_some("JSON");
    }
    None
}

/// The bytes as text: UTF-8 (a sign cut at the end is forgiven) without control signs.
fn as_text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(error) if head[..error.valid_up_to()].trim_ascii_start().starts_with(b"<") => {
            // A page in an older encoding: what stands before the first odd byte tells enough.
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let binary = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{c}' | '\u{1b}');
    (!text.contains(binary)).then_some(text)
}

/// The beginning without byte order mark, white space and comments, in lower case.
fn trimmed(text: &str) -> String {
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    while let Some(comment) = rest.strip_prefix("<!--") {
        rest = comment.split_once("-->").map_or("", |(_, after)| after).trim_start();
    }
    rest.chars().take(2048).collect::<String>().to_ascii_lowercase()
}

fn is_html(start: &str) -> bool {
    ["<!doctype html", "<html", "<head", "<body", "<title", "<script", "<meta"].iter().any(|tag| {
        // The tag's name must end here: `<header>` is no `<head>`.
        start.strip_prefix(tag).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
    })
}

/// What follows the XML declaration and the comments after it.
fn after_prolog(start: &str) -> &str {
    let mut rest = start;
    while rest.starts_with("<?") || rest.starts_with("<!--") {
        let Some((_, after)) =
            rest.split_once("?>").filter(|_| rest.starts_with("<?")).or_else(|| rest.split_once("-->"))
        else {
            return "";
        };
        rest = after.trim_start();
    }
    rest
}

/// Whether the lines have the same number of columns, two at least.
fn is_table(text: &str) -> bool {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    // The last line may be cut.
    if !text.ends_with('\n') && lines.len() > 2 {
        lines.pop();
    }
    [',', ';', '\t'].iter().any(|separator| {
        let columns = |line: &str| {
            let mut quoted = false;
            let separates = |c: char| {
                quoted ^= c == '"';
                c == *separator && !quoted
            };
            line.matches(separates).count()
        };
        let first = lines.first().map_or(0, |line| columns(line));
        first > 0 && lines.len() > 1 && lines.iter().all(|line| columns(line) == first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_files_are_told_by_their_first_bytes() {
        for (head, kind) in [
            (&b"%PDF-1.7\n"[..], Some("application/pdf")),
            (b"\x89PNG\r\n\x1a\n", Some("image/png")),
            (b"a,b\n1,\"x,y\"\n3,4", Some("text/csv")),
            (b"name;amount\nx;1,5\ny;2,5\n", Some("text/csv")),
            (b"Dear all,\nhello\n", Some("text/plain")),
            (b"{\"a\":[1]}", Some("application/json")),
            (b"<!DOCTYPE html><p>", Some("text/html")),
            (b"h\xc3\xa9llo w\xc3", Some("text/plain")),
            (b"\x00\x01\x02\x03", None),
            (b"", None),
        ] {
            assert_eq!(sniff(head), kind, "{head:?}");
        }
    }

    #[test]
    fn error_pages_are_known_and_other_text_is_not() {
        let page = |text: &str| error_page(text.as_bytes(), text.len() as u64);
        for html in [
            "<!DOCTYPE html><title>Sign in</title>",
            "\u{feff}\n <HTML lang=en>",
            "<!-- x --><html>",
            "<head><meta>",
            "<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0\"><html>",
        ] {
            assert!(page(html).is_some(), "{html}");
        }
        assert_eq!(page("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AccessDenied</Code>"), Some("XML"));
        assert_eq!(page("<Error><Code>NoSuchKey</Code></Error>"), Some("XML"));
        assert_eq!(page("{\"error\":\"Invalid API token\"}"), Some("JSON"));
        assert_eq!(page("{ \"status\": 500, \"errors\": []}"), Some("JSON"));
        assert_eq!(error_page(b"{\"error\":\"cut", 100_000), Some("JSON"));
        for file in [
            "<?xml version=\"1.0\"?><invoice/>",
            "<svg/>",
            "{\"a\":\"error\"}",
            "error",
            "<header/>",
            "",
            "[1]",
            "%PDF-",
        ] {
            assert_eq!(page(file), None, "{file}");
        }
        assert_eq!(error_page(b"\x89PNG\r\n\x1a\n<html>", 14), None);
        assert_eq!(error_page(b"<html><p>caf\xe9</p>", 17), Some("HTML"));
    }
}
