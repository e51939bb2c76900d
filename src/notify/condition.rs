//! What people are told of, and in which words.

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A team may not send requests until a person acts, or for long. The subject is the team.
    TeamPaused,
    /// Work waits, and nothing of it gets archived. The subject is the team.
    NoSuccess,
    /// A file system is nearly full. The subject is what is there: `inbox`, `catalog`, `spool`, `archive`.
    DiskNearlyFull,
    /// The inbox has reached its alarm level. The subject is the team.
    InboxFilling,
    /// Something that the service needs does not work. The subject is its name in `/readyz`.
    NotReady,
    /// A token, a secret or a certificate cannot be read again; the old one is still used. The subject is the setting.
    ReloadFailed,
    /// A part of the service shows no sign of life. The subject is its name.
    Hanging,
    /// The inbox holds webhooks of a team that is not configured any more. The subject is the team.
    InboxOfNoTeam,
    /// A certificate is about to expire, or has. The subject is what shows it.
    CertificateExpires,
    /// Mail is found that no webhook brought, and no webhook comes. The subject is the team.
    WebhooksSilent,
    /// Processes that work on one archive have settings that differ. The subject is the archive's place.
    SettingsDiffer,
    /// Attachments failed for good. The subject is the team.
    Failed,
    /// Attachments went to quarantine. The subject is the team.
    Quarantined,
    /// Webhooks were refused, as their bodies are too large. The subject is the team.
    BodyTooLarge,
    /// Bodies were accepted that cannot be read. The subject is the team.
    Unreadable,
}

/// The words of one kind; `{}` stands for the subject.
struct Words {
    name: &'static str,
    /// For something that happens: of one, and of several, with `{n}` for how many.
    trouble: &'static str,
    several: Option<&'static str>,
    recovered: &'static str,
    advice: &'static str,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::TeamPaused,
        Self::NoSuccess,
        Self::DiskNearlyFull,
        Self::InboxFilling,
        Self::NotReady,
        Self::ReloadFailed,
        Self::Hanging,
        Self::InboxOfNoTeam,
        Self::CertificateExpires,
        Self::WebhooksSilent,
        Self::SettingsDiffer,
        Self::Failed,
        Self::Quarantined,
        Self::BodyTooLarge,
        Self::Unreadable,
    ];

    /// Its name, for machines.
    pub fn name(self) -> &'static str {
        self.words().name
    }

    /// The kind of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it lasts and ends, rather than happens.
    pub fn lasts(self) -> bool {
        self.words().several.is_none()
    }

    /// The kinds that last.
    pub(super) fn lasting() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.lasts())
    }

    fn words(self) -> Words {
        let lasts = |name, trouble, recovered, advice| Words { name, trouble, several: None, recovered, advice };
        let happens =
            |name, one, several, advice| Words { name, trouble: one, several: Some(several), recovered: "", advice };
        match self {
            Self::TeamPaused => lasts(
                "team_paused",
                "team {} is paused",
                "team {} is no longer paused",
                "Webhooks are still taken in; nothing of the team is fetched meanwhile. If the token is refused, put a new one \
                 in its place.",
            ),
            Self::NoSuccess => lasts(
                "no_success",
                "team {}: work waits, and nothing gets archived",
                "team {}: attachments get archived again",
                "`jellyjar status` and the log say what stands in the way.",
            ),
            Self::DiskNearlyFull => lasts(
                "disk_nearly_full",
                "the disk of the {} is nearly full",
                "the disk of the {} has room again",
                "Make room, or move it to a larger disk.",
            ),
            Self::InboxFilling => lasts(
                "inbox_filling",
                "the inbox of team {} is filling up",
                "the inbox of team {} has room again",
                "When it is full, webhooks are refused. See why the worker does not keep up: `jellyjar status`.",
            ),
            Self::NotReady => lasts(
                "not_ready",
                "{} does not work",
                "{} works again",
                "It is tried again and again; nothing that was accepted is lost meanwhile.",
            ),
            Self::ReloadFailed => {
                lasts("reload_failed", "{} cannot be read again", "{} can be read again", "The old one is still used.")
            }
            Self::Hanging => lasts(
                "hanging",
                "the {} shows no sign of life",
                "the {} is alive again",
                "If it lasts, restart the service, and report it with the log.",
            ),
            Self::InboxOfNoTeam => lasts(
                "inbox_of_no_team",
                "webhooks of team {} wait, and no such team is configured",
                "no webhooks of team {} wait unconfigured any more",
                "They are not archived. Put the team back into the configuration, or move its folder out of the inbox.",
            ),
            Self::CertificateExpires => lasts(
                "certificate_expires",
                "the certificate of the {} expires soon",
                "the certificate of the {} was renewed",
                "Once it has expired, Jelly delivers no more webhooks, and after ten failures in a row switches them off. Put a \
                 new one in its place; it is read again by itself.",
            ),
            Self::WebhooksSilent => lasts(
                "webhooks_silent",
                "team {}: mail comes, and no webhook",
                "team {}: webhooks come again",
                "Jelly switches a webhook off after 10 failures in a row: see its settings there. Meanwhile sweeps find what \
                 comes.",
            ),
            Self::SettingsDiffer => lasts(
                "settings_differ",
                "processes that work on {} have settings that differ",
                "all processes that work on {} have the same settings again",
                "What becomes of an attachment depends on who takes it. Give all of them the same settings.",
            ),
            Self::Failed => happens(
                "failed",
                "an attachment of team {} failed for good",
                "{n} attachments of team {} failed for good",
                "`jellyjar failed` shows them; `jellyjar retry` tries again.",
            ),
            Self::Quarantined => happens(
                "quarantined",
                "an attachment of team {} went to quarantine",
                "{n} attachments of team {} went to quarantine",
                "Their bytes contradict what was declared. `jellyjar quarantined` shows them; `accept` keeps, `retry` fetches \
                 again.",
            ),
            Self::BodyTooLarge => happens(
                "body_too_large",
                "a webhook of team {} was refused for its size",
                "{n} webhooks of team {} were refused for their size",
                "What was in them is not archived. Raise `serve.max_body_size`, and replay those messages from a dump.",
            ),
            Self::Unreadable => happens(
                "unreadable",
                "a webhook of team {} cannot be read",
                "{n} webhooks of team {} cannot be read",
                "They are kept; `jellyjar rejected` shows them.",
            ),
        }
    }
}

/// A trouble: its kind, and what has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// The kind.
    pub kind: Kind,
    /// What has the trouble: a team, a place, a dependency; the kind says which.
    pub subject: String,
}

impl Condition {
    /// Makes a condition.
    pub fn new(kind: Kind, subject: impl Into<String>) -> Self {
        Self { kind, subject: subject.into() }
    }

    /// A sentence, without its full stop: that it is there, or that it is over.
    pub(super) fn title(&self, is_over: bool, count: u64) -> String {
        let words = self.kind.words();
        let sentence = match words.several {
            _ if is_over => words.recovered,
            Some(several) if count != 1 => several,
            _ => words.trouble,
        };
        sentence.replace("{n}", &count.to_string()).replace("{}", &self.subject)
    }

    /// What to do about it.
    pub(super) fn advice(&self) -> &'static str {
        self.kind.words().advice
    }
}
