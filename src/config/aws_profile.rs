//! Profiles of the AWS tools: `~/.aws/credentials` and `~/.aws/config`. No error shows a value.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use configparser::ini::Ini;

use super::{AwsProfile, ConfigError, Environment};
use crate::secret::Secret;

/// The most that is read of one file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// By these settings the AWS tools find credentials too; here they are not followed.
const OTHER_WAYS: [&str; 8] = [
    "role_arn",
    "source_profile",
    "credential_source",
    "credential_process",
    "sso_session",
    "sso_start_url",
    "login_session",
    "web_identity_token_file",
];

/// Reads a profile. `required` says that somebody named it, and it must be there.
///
/// # Errors
/// If a file cannot be read or is no profile file, if a required profile is in none, or if a key stands there in half.
pub(super) fn read(name: &str, required: bool, environment: &Environment) -> Result<Option<AwsProfile>, ConfigError> {
    let path_of = |variable: &str, usual: &str| {
        let home = environment.path("HOME");
        let path = environment.path(variable);
        match path.as_ref().and_then(|path| path.strip_prefix("~").ok()) {
            Some(rest) => home.map(|home| home.join(rest)),
            None => path.or_else(|| home.map(|home| home.join(usual))),
        }
    };
    let places = [
        (Kind::Credentials, path_of("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")),
        (Kind::Config, path_of("AWS_CONFIG_FILE", ".aws/config")),
    ];
    let mut profile = AwsProfile { name: name.to_owned(), ..AwsProfile::default() };
    let mut searched = Vec::new();
    for (kind, path) in places.into_iter().filter_map(|(kind, path)| Some((kind, path?))) {
        let Some(file) = ProfileFile::read(&path)? else {
            searched.push(format!("{} (not there)", path.display()));
            continue;
        };
        match file.section(kind, name) {
            Some(section) => file.take(&section, &mut profile)?,
            None if kind == Kind::Config && file.0.get_map_ref().contains_key(name) => {
                searched.push(format!("{} (where it must be headed `[profile {name}]`)", path.display()));
            }
            None => searched.push(path.display().to_string()),
        }
    }
    if !profile.files.is_empty() {
        return Ok(Some(profile));
    }
    if !required {
        return Ok(None);
    }
    let searched = if searched.is_empty() { "no file, for HOME is not set".to_owned() } else { searched.join(" and ") };
    Err(ConfigError::Conflict(format!(
        "there is no AWS profile {name:?}; looked in {searched}; write its name as it stands there, or run: aws \
         configure --profile {name}"
    )))
}

/// The two files differ in how they name profiles.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Credentials,
    Config,
}

/// One file, parsed, and its path.
struct ProfileFile(Ini, PathBuf);

impl ProfileFile {
    /// Reads a file; `None` where there is none.
    fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let mut bytes = Vec::new();
        match File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(ConfigError::ReadProfiles { path: path.to_owned(), source }),
        }
        let blame = |message: String| ConfigError::File { path: path.to_owned(), line: None, key: None, message };
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(blame("it is larger than any file of AWS profiles; is it the right file?".into()));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| blame("this file of AWS profiles is not UTF-8 text; save it as UTF-8".into()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines: Vec<_> = text.lines().map(without_comment).collect();
        let mut ini = parser();
        // The parser's messages have line numbers and no content.
        ini.read(lines.join("\n")).map_err(|problem| blame(format!("this is no file of AWS profiles: {problem}")))?;
        Ok(Some(Self(ini, path.to_owned())))
    }

    /// The header under which a profile stands. In `config` it is `[profile NAME]`, but for `[default]`.
    fn section(&self, kind: Kind, name: &str) -> Option<String> {
        let sections = self.0.get_map_ref();
        if kind == Kind::Config {
            let headed = |header: &&String| header_name(header, "profile").is_some_and(|found| found == name);
            if let Some(header) = sections.keys().find(headed) {
                return Some(header.clone());
            }
            if name != "default" {
                return None;
            }
        }
        sections.contains_key(name).then(|| name.to_owned())
    }

    /// Takes over what a section has and an earlier file has not.
    fn take(&self, section: &str, profile: &mut AwsProfile) -> Result<(), ConfigError> {
        let blame = |message: String| {
            let message = format!("AWS profile {:?}: {message}", profile.name);
            ConfigError::File { path: self.1.clone(), line: None, key: None, message }
        };
        let value = |key: &str| {
            let value = self.value(section, key).filter(|value| !value.is_empty());
            match value.filter(|value| value.contains(char::is_whitespace) || value.contains(char::is_control)) {
                Some(_) => Err(blame(format!("`{key}` has white space inside it, or goes over several lines"))),
                None => Ok(value),
            }
        };
        let keys = (value("aws_access_key_id")?, value("aws_secret_access_key")?, value("aws_session_token")?);
        let region = value("region")?;
        let endpoint = match self.value(section, "services") {
            Some(services) => self.service_endpoint(services),
            None => None,
        };
        let endpoint = endpoint.or(value("endpoint_url")?);
        match keys {
            (Some(id), Some(secret), token) => {
                // Keys are a set: those of two files never mix.
                if profile.access_key_id.is_none() {
                    profile.access_key_id = Some(Secret::new(id));
                    profile.secret_access_key = Some(Secret::new(secret));
                    profile.session_token = token.map(Secret::new);
                }
            }
            (None, None, _) => {}
            (Some(_), None, _) => {
                return Err(blame("it has `aws_access_key_id` without `aws_secret_access_key`".into()));
            }
            (None, Some(_), _) => {
                return Err(blame("it has `aws_secret_access_key` without `aws_access_key_id`".into()));
            }
        }
        let other_way = OTHER_WAYS.into_iter().find(|key| self.value(section, key).is_some());
        if profile.other_way.is_none() {
            profile.other_way = other_way.map(|key| (key, self.1.clone()));
        }
        profile.region = profile.region.take().or(region.map(str::to_owned));
        profile.endpoint = profile.endpoint.take().or(endpoint.map(str::to_owned));
        profile.files.push(self.1.clone());
        Ok(())
    }

    /// The `endpoint_url` below `s3 =` in a `[services NAME]` section.
    fn service_endpoint(&self, services: &str) -> Option<&str> {
        let named = |header: &&String| header_name(header, "services").is_some_and(|found| found == services);
        let section = self.0.get_map_ref().keys().find(named)?;
        let block = self.value(section, "s3")?;
        block
            .lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| key.trim().eq_ignore_ascii_case("endpoint_url"))
            .map(|(_, value)| value.trim())
    }

    /// The value of a key, whose case does not matter.
    fn value(&self, section: &str, key: &str) -> Option<&str> {
        let section = self.0.get_map_ref().get(section)?;
        section.iter().find(|(found, _)| found.eq_ignore_ascii_case(key)).and_then(|(_, value)| value.as_deref())
    }
}

/// A parser that reads as the AWS tools do: `=` alone parts key and value, names keep their case, and an indented block
/// belongs to the key above it instead of to the profile.
fn parser() -> Ini {
    let mut ini = Ini::new_cs();
    let mut rules = ini.defaults();
    rules.delimiters = vec!['='];
    rules.multiline = true;
    rules.enable_inline_comments = false;
    // What stands before the first header belongs to no profile.
    rules.default_section = String::new();
    ini.load_defaults(rules);
    ini
}

/// Cuts the comment from a line: a `#` or `;` in a value counts only after white space.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with('[') {
        return line.find(']').map_or(line, |end| &line[..=end]);
    }
    let mut previous_is_space = false;
    for (at, c) in line.char_indices() {
        if previous_is_space && matches!(c, '#' | ';') {
            return line[..at].trim_end();
        }
        previous_is_space = c.is_whitespace();
    }
    line
}

/// The name in a header like `[profile NAME]`, with or without quotes.
fn header_name<'a>(header: &'a str, kind: &str) -> Option<&'a str> {
    let rest = header.strip_prefix(kind).filter(|rest| rest.starts_with(char::is_whitespace))?.trim();
    Some(['"', '\''].into_iter().find_map(|quote| rest.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a profile of two files; a missing text is a missing file.
    fn read_from(
        credentials: Option<&[u8]>,
        config: Option<&[u8]>,
        name: &str,
        required: bool,
    ) -> Result<Option<AwsProfile>, String> {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".aws");
        std::fs::create_dir(&folder).unwrap();
        for (file, bytes) in [("credentials", credentials), ("config", config)] {
            if let Some(bytes) = bytes {
                std::fs::write(folder.join(file), bytes).unwrap();
            }
        }
        let environment = Environment::from_pairs([("HOME", home.path())]);
        read(name, required, &environment)
            .map_err(|error| format!("{error} {error:?}").replace(&folder.display().to_string(), "AWS"))
    }

    fn keys(profile: &AwsProfile) -> [Option<&str>; 3] {
        [&profile.access_key_id, &profile.secret_access_key, &profile.session_token]
            .map(|value| value.as_ref().map(Secret::expose))
    }

    #[test]
    fn a_profile_is_put_together_of_both_files() {
        let credentials = b"\xef\xbb\xbf# keys\n[default]\naws_access_key_id = ID0\naws_secret_access_key = S0\n\n\
            [work]\r\nAWS_Access_Key_Id=ID1 ; mine\r\naws_secret_access_key = a=b/c#d+e== # secret\r\naws_session_token=T1\r\n";
        let config = b"[default]\nregion = eu-west-1\n[ profile work ] # [old]\nregion=eu-central-1\nservices = local\n\
            s3 =\n    addressing_style = path\n    region = nowhere\nendpoint_url = http://localhost:1\n\
            [services local]\ns3 =\n  endpoint_url = http://localhost:9000\ndynamodb =\n  endpoint_url = http://localhost:8\n";
        let profile = read_from(Some(credentials), Some(config), "work", true).unwrap().unwrap();
        assert_eq!(keys(&profile), [Some("ID1"), Some("a=b/c#d+e=="), Some("T1")]);
        assert_eq!(profile.region.as_deref(), Some("eu-central-1"));
        assert_eq!(profile.endpoint.as_deref(), Some("http://localhost:9000"));
        assert_eq!(profile.files.len(), 2);
        let profile = read_from(Some(credentials), Some(config), "default", false).unwrap().unwrap();
        assert_eq!(keys(&profile), [Some("ID0"), Some("S0"), None]);
        assert_eq!((profile.region.as_deref(), profile.endpoint), (Some("eu-west-1"), None));
    }

    #[test]
    fn keys_may_stand_in_config_and_never_mix_with_those_of_credentials() {
        let config = b"[profile \"two words\"]\n  aws_access_key_id = ID\n  aws_secret_access_key = S\n  aws_session_token = T\n";
        let profile = read_from(None, Some(config), "two words", true).unwrap().unwrap();
        assert_eq!(keys(&profile), [Some("ID"), Some("S"), Some("T")]);
        let credentials = b"[two words]\naws_access_key_id = ID2\naws_secret_access_key = S2\n";
        let profile = read_from(Some(credentials), Some(config), "two words", true).unwrap().unwrap();
        assert_eq!(keys(&profile), [Some("ID2"), Some("S2"), None]);
    }

    #[test]
    fn a_named_profile_that_is_missing_is_told_with_the_files() {
        let error = read_from(None, Some(b"[work]\nregion = x\n"), "work", true).unwrap_err();
        assert!(error.contains("AWS/credentials (not there)"), "{error}");
        assert!(error.contains("AWS/config (where it must be headed `[profile work]`)"), "{error}");
        let error = read_from(Some(b"[Work]\n"), None, "work", true).unwrap_err();
        assert!(error.contains("looked in AWS/credentials and AWS/config (not there)"), "{error}");
        assert!(read_from(Some(b"[other]\n"), None, "default", false).unwrap().is_none());
        assert!(read("default", false, &Environment::default()).unwrap().is_none());
        let error = read("work", true, &Environment::default()).unwrap_err().to_string();
        assert!(error.contains("HOME is not set"), "{error}");
    }

    #[test]
    fn what_gives_credentials_in_another_way_is_noted_with_its_file() {
        for key in OTHER_WAYS {
            let config = format!("[default]\nregion = x\n{key} = y\n");
            let profile = read_from(None, Some(config.as_bytes()), "default", false).unwrap().unwrap();
            assert_eq!(profile.other_way.map(|(key, _)| key), Some(key));
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_refused_without_showing_them() {
        let large = "hush".repeat(300_000);
        for (text, expected) in [
            (&b"[default]\naws_access_key_id = hush\n"[..], "without `aws_secret_access_key`"),
            (b"[default]\naws_secret_access_key = hush\n", "without `aws_access_key_id`"),
            (b"[default]\naws_access_key_id = hush hush\naws_secret_access_key = hush\n", "white space"),
            (b"[default]\naws_access_key_id = x\naws_secret_access_key = hush\n  hush\n", "several lines"),
            (b"[default\naws_secret_access_key = hush\n", "line 1"),
            (b"[default]\n = hush\n", "line 2"),
            (b"[default]\naws_secret_access_key = hush\xff\n", "UTF-8"),
            (large.as_bytes(), "larger"),
        ] {
            let error = read_from(Some(text), None, "default", false).unwrap_err();
            assert!(error.starts_with("AWS/credentials: ") && error.contains(expected), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn variables_name_other_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys"), "[a]\naws_access_key_id=I\naws_secret_access_key=S\n").unwrap();
        std::fs::write(folder.path().join("rest"), "[profile a]\nregion=r\n").unwrap();
        let rest = folder.path().join("rest").display().to_string();
        let home = folder.path().display().to_string();
        let pairs = [("AWS_SHARED_CREDENTIALS_FILE", "~/keys"), ("AWS_CONFIG_FILE", &rest), ("HOME", &home)];
        let profile = read("a", true, &Environment::from_pairs(pairs)).unwrap().unwrap();
        assert_eq!((keys(&profile)[1], profile.region.as_deref()), (Some("S"), Some("r")));
        let pairs = [("AWS_CONFIG_FILE", home.as_str())];
        let error = read("a", true, &Environment::from_pairs(pairs)).unwrap_err();
        assert!(matches!(error, ConfigError::ReadProfiles { .. }), "{error}");
    }
}
