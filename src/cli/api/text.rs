//! Texts that are sent: from the command line, a file or standard input.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::super::UsageError;

/// The longest text that is sent, in bytes.
const MAX_BYTES: u64 = 10 << 20;

/// The text of a comment or a draft.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Body {
    /// The text; - is standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    body: Option<String>,
    /// A file that holds the text; - is standard input
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
}

impl Body {
    /// Reads it. Only what is there to be read is sent: an empty text is refused.
    pub(super) fn read(&self) -> anyhow::Result<String> {
        let text = match (&self.body, &self.body_file) {
            (Some(dash), _) if dash == "-" => from(Path::new("-"))?,
            (Some(text), _) => text.clone(),
            (None, Some(path)) => from(path)?,
            (None, None) => return Err(UsageError("give --body TEXT or --body-file FILE".into()).into()),
        };
        if text.trim().is_empty() {
            return Err(UsageError("the text is empty, so there is nothing to send".into()).into());
        }
        Ok(text)
    }
}

/// Reads a file, or standard input, as text.
pub(super) fn from(path: &Path) -> anyhow::Result<String> {
    let (name, reader): (String, Box<dyn Read>) = if path.as_os_str() == "-" {
        ("standard input".into(), Box::new(stdin().lock()))
    } else {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| UsageError(format!("cannot read {name}: {error}")))?;
        (name, Box::new(file))
    };
    text(reader, &name)
}

fn text(reader: impl Read, name: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(UsageError(format!("{name} is larger than the {} MiB that are sent", MAX_BYTES >> 20)).into());
    }
    let text = String::from_utf8(bytes).map_err(|_| UsageError(format!("{name} is not UTF-8 text")))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_and_utf8_and_lose_their_byte_order_mark() {
        assert_eq!(text("\u{feff}<p>\n".as_bytes(), "x").unwrap(), "<p>\n");
        assert!(text(&b"\xff"[..], "x.html").unwrap_err().to_string().contains("x.html is not UTF-8"));
        assert!(text(std::io::repeat(b' '), "x.html").unwrap_err().to_string().contains("larger than the 10 MiB"));
    }
}
