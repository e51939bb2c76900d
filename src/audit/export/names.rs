//! Names that are safe everywhere: what strangers call their files becomes one component of a path that Linux, macOS and
//! Windows all take, and no two paths of an export mean the same file on any of them.

use std::collections::HashMap;

use icu_normalizer::ComposingNormalizerBorrowed;
use sanitise_file_name::{Options, sanitise_with_options};

use crate::digest::Digest;

/// The longest path inside an export, in UTF-16 units: Windows' Explorer stops at 260 with the folder that the export is
/// in, so 60 are left for that.
pub(super) const MAX_PATH_UNITS: usize = 200;
/// The longest component in bytes. File systems bear 255; encrypted ones on Linux and many network disks bear 143.
const MAX_COMPONENT_BYTES: usize = 140;
/// However deep the folders are, this much is left for the name of the file.
const MIN_FILE_UNITS: usize = 60;
/// The longest extension that is kept when a name is cut, in characters.
const MAX_EXTENSION_CHARS: usize = 12;

/// The names in the root of an export that are its own.
pub(super) const OWN_NAMES: [&str; 4] = ["manifest.csv", "manifest.jsonl", "SHA256SUMS", ".jellyjar-export"];

const OPTIONS: Options<Option<char>> = Options {
    // Cutting is done here, with the extension kept and in units of both kinds.
    length_limit: usize::MAX,
    // It takes what stands behind the last dot for the extension, and so misses that Windows reserves `aux.tar.gz`.
    extension_cleverness: false,
    trim_more_punctuation: false,
    collapse_replacements: true,
    ..Options::DEFAULT
};

/// How long a component may be: in UTF-16 units, as Windows counts, and never more than [`MAX_COMPONENT_BYTES`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit(usize);

impl Limit {
    /// So many UTF-16 units, but at least 40.
    pub(super) fn units(units: usize) -> Self {
        Self(units.max(40))
    }

    /// For each of `depth` folders above a file.
    pub(super) fn folder(depth: usize) -> Self {
        let each = (MAX_PATH_UNITS - MIN_FILE_UNITS) / depth.max(1) - 1;
        Self(each.min(100))
    }

    /// For a file below `folders`, which has no slash at its end.
    pub(super) fn file(folders: &str) -> Self {
        let used = if folders.is_empty() { 0 } else { units(folders) + 1 };
        Self(MAX_PATH_UNITS.saturating_sub(used).max(40))
    }

    fn fits(self, text: &str) -> bool {
        text.len() <= MAX_COMPONENT_BYTES && units(text) <= self.0
    }
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Makes one component of a path out of any text. An extension survives where the text has to be cut; none is added.
pub(super) fn component(text: &str, limit: Limit) -> String {
    let visible: String =
        text.chars().filter(|c| !is_hidden(*c)).map(|c| if is_private(c) { '_' } else { c }).collect();
    let composed = ComposingNormalizerBorrowed::new_nfc().normalize(&visible);
    let mut name = sanitise_with_options(&composed, &OPTIONS);
    if name.starts_with('-') {
        // It would be an option to every command of a shell.
        name.replace_range(..1, "_");
    }
    free_reserved(&mut name);
    cut(&name, "", limit)
}

/// The name with its number before the extension, within the limit.
fn numbered(name: &str, number: u32, limit: Limit) -> String {
    cut(name, &format!(" ({number})"), limit)
}

/// Cuts `name` until it fits together with `suffix`, which goes before the extension.
fn cut(name: &str, suffix: &str, limit: Limit) -> String {
    let (stem, extension) = split_extension(name);
    let mut stem = stem.to_owned();
    loop {
        let whole = format!("{stem}{suffix}{extension}");
        if limit.fits(&whole) {
            return whole;
        }
        stem.pop();
        stem.truncate(stem.trim_end_matches([' ', '.']).len());
        if stem.is_empty() {
            // Cannot come: an extension is short. It ends the loop whatever the limits become.
            return format!("_{suffix}");
        }
    }
}

/// The name before its extension, and the extension with its dot: empty where there is none.
pub(super) fn split_extension(name: &str) -> (&str, &str) {
    let is_extension = |text: &str| {
        let length = text.chars().count();
        (1..=MAX_EXTENSION_CHARS).contains(&length) && text.chars().all(char::is_alphanumeric) && text.len() <= 36
    };
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && is_extension(extension) => {
            // `.tar.gz` is one extension to people.
            let inner = stem.len().checked_sub(4).filter(|at| *at > 0 && stem.is_char_boundary(*at));
            let at = inner.filter(|at| stem[*at..].eq_ignore_ascii_case(".tar")).unwrap_or(stem.len());
            name.split_at(at)
        }
        _ => (name, ""),
    }
}

/// Puts `_` behind a name that Windows keeps for a device, which it does whatever follows the first dot.
fn free_reserved(name: &mut String) {
    let first = name.split('.').next().unwrap_or_default().trim_end_matches(' ');
    let upper = first.to_uppercase();
    let numbered = upper.strip_prefix("COM").or_else(|| upper.strip_prefix("LPT")).is_some_and(|rest| {
        let mut rest = rest.chars();
        rest.next().is_some_and(|c| c.is_ascii_digit() || matches!(c, '¹' | '²' | '³')) && rest.next().is_none()
    });
    if numbered || ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"].contains(&upper.as_str()) {
        name.insert(first.len(), '_');
    }
}

/// Characters without a shape (Unicode's default ignorable ones): they turn text around or make two names look alike,
/// and some file systems leave them out when they compare.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Code points that stand for no character, and those by which some systems write `:` and its like.
fn is_private(c: char) -> bool {
    matches!(c, '\u{f000}'..='\u{f0ff}' | '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
}

/// What two paths have in common that are one file somewhere: case and the two ways to write an accent do not count.
/// It sees a few more twins than any system does, which costs no more than a number.
fn folded(path: &str) -> u64 {
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    // Upper case of lower case: ẞ, ß and SS, K and the Kelvin sign, all forms of the sigma.
    let upper = nfc.normalize(path).to_lowercase().to_uppercase();
    let digest = Digest::of(nfc.normalize(&upper).as_bytes());
    u64::from_be_bytes(digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes"))
}

/// Whether a name in the root is one of the export's own.
pub(super) fn is_own(name: &str) -> bool {
    OWN_NAMES.iter().any(|own| folded(own) == folded(name))
}

/// The paths that are taken: 8 bytes of hash for each, about 35 MB a million. Two paths of one hash cost a number.
#[derive(Debug)]
pub(super) struct Names {
    /// For each path, the number that its next twin gets.
    taken: HashMap<u64, u32>,
}

impl Default for Names {
    fn default() -> Self {
        let mut names = Self { taken: HashMap::new() };
        for own in OWN_NAMES {
            names.take(own);
        }
        names
    }
}

impl Names {
    /// Marks a path as taken.
    pub(super) fn take(&mut self, path: &str) {
        self.taken.entry(folded(path)).or_insert(2);
    }

    /// A free path for `name` in `folders`, numbered if it has to be; it is taken now.
    pub(super) fn assign(&mut self, folders: &str, name: &str) -> String {
        let join = |name: &str| if folders.is_empty() { name.to_owned() } else { format!("{folders}/{name}") };
        let path = join(name);
        let key = folded(&path);
        let Some(next) = self.taken.get(&key).copied() else {
            self.taken.insert(key, 2);
            return path;
        };
        let mut number = next;
        loop {
            let path = join(&numbered(name, number, Limit::file(folders)));
            number += 1;
            if let std::collections::hash_map::Entry::Vacant(vacant) = self.taken.entry(folded(&path)) {
                vacant.insert(2);
                self.taken.insert(key, number);
                return path;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn safe(text: &str) -> String {
        component(text, Limit::units(100))
    }

    #[test]
    fn hostile_names_become_harmless_and_plain_ones_stay_as_they_are() {
        for (text, expected) in [
            ("Rechnung März 2026.pdf", "Rechnung März 2026.pdf"),
            ("__init__.py", "__init__.py"),
            ("README", "README"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("/etc/passwd", "_etc_passwd"),
            ("..", "_"),
            ("", "_"),
            ("C:\\Windows\\system.ini", "C_Windows_system.ini"),
            ("a\0b\nc\u{1b}[31m.txt", "a_b c_[31m.txt"),
            ("gnp.\u{202e}fdp.exe", "gnp.fdp.exe"),
            ("NUL", "NUL_"),
            ("aux.tar.gz", "aux_.tar.gz"),
            ("Com1 .txt", "Com1_ .txt"),
            ("LPT².log", "LPT²_.log"),
            ("report.pdf. . .", "report.pdf"),
            (".htaccess", "htaccess"),
            ("-rf", "_rf"),
            ("cafe\u{301}.txt", "café.txt"),
            ("what?*<>|\".doc", "what_.doc"),
        ] {
            assert_eq!(safe(text), expected, "{text:?}");
        }
    }

    #[test]
    fn long_names_are_cut_before_their_extension() {
        let long = format!("{}.pdf", "a".repeat(500));
        assert_eq!(safe(&long), format!("{}.pdf", "a".repeat(96)));
        let tar = format!("{}.tar.gz", "ü".repeat(500));
        assert!(safe(&tar).ends_with("ü.tar.gz") && safe(&tar).len() <= MAX_COMPONENT_BYTES);
        assert_eq!(safe(&"x".repeat(500)).len(), 100, "a name without an extension gets none");
    }

    #[test]
    fn twins_are_numbered_whatever_their_case_or_form() {
        let mut names = Names::default();
        assert_eq!(names.assign("a", "x.pdf"), "a/x.pdf");
        assert_eq!(names.assign("A", "X.PDF"), "A/X (2).PDF");
        assert_eq!(names.assign("a", "x.pdf"), "a/x (3).pdf");
        assert_eq!(names.assign("a", "x (4).pdf"), "a/x (4).pdf");
        assert_eq!(names.assign("a", "x.pdf"), "a/x (5).pdf");
        assert_eq!(names.assign("", "é"), "é");
        assert_eq!(names.assign("", "E\u{301}"), "E\u{301} (2)");
        assert_eq!(names.assign("", "STRASSE"), "STRASSE");
        assert_eq!(names.assign("", "straße"), "straße (2)");
        assert_eq!(names.assign("", "Manifest.CSV"), "Manifest (2).CSV");
    }

    fn check(name: &str, limit: Limit) -> Result<(), TestCaseError> {
        prop_assert!(!name.is_empty() && name != "." && name != "..");
        prop_assert!(name.len() <= MAX_COMPONENT_BYTES && units(name) <= limit.0, "{} too long", name);
        prop_assert!(!name.chars().any(|c| c.is_control() || is_hidden(c) || "/\\<>:\"|?*".contains(c)));
        prop_assert!(!name.ends_with([' ', '.']) && !name.starts_with([' ', '.', '-']));
        let first = name.split('.').next().unwrap().trim_end().to_ascii_uppercase();
        prop_assert!(!["CON", "PRN", "AUX", "NUL", "COM1", "COM9", "LPT1", "COM³"].contains(&first.as_str()));
        prop_assert!(ComposingNormalizerBorrowed::new_nfc().is_normalized(name));
        Ok(())
    }

    /// Text made of what breaks names.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<char>().prop_map(String::from),
            proptest::sample::select(vec![
                "/", "\\", "..", ".", " ", ":", "\0", "\n", "\u{202e}", "\u{200d}", "CON", "nul", "COM1", "lpt³", "-",
                "é", "e\u{301}", "\u{338}", "<", ".pdf", ".tar.gz", "(2)", "😀", "ß", "\u{feff}", "\u{f03a}",
                "\u{ffff}", "~", "%2e",
            ])
            .prop_map(str::to_owned),
            "[a-z]{1,60}",
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn every_name_is_safe_and_stays_so_when_it_is_numbered(text in hostile(), length in 40..200usize, number in 2u32..) {
            let limit = Limit::units(length);
            let name = component(&text, limit);
            check(&name, limit)?;
            check(&numbered(&name, number, limit), limit)?;
            prop_assert_eq!(component(&name, limit), name, "a safe name stays as it is");
        }

        #[test]
        fn no_two_paths_are_one_file_anywhere(texts in proptest::collection::vec(hostile(), 0..40)) {
            let mut names = Names::default();
            let mut seen = std::collections::HashSet::new();
            for text in &texts {
                for text in [text.clone(), text.to_uppercase(), text.to_lowercase()] {
                    let path = names.assign("f", &component(&text, Limit::file("f")));
                    prop_assert!(seen.insert(folded(&path)), "{} twice", path);
                    prop_assert!(units(&path) <= MAX_PATH_UNITS);
                }
            }
        }
    }
}
