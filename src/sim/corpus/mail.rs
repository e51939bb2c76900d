//! The people, subjects and file names of the realistic mail.

use super::super::content::Kind;

/// The id of the first member; the others follow it.
pub(in crate::sim) const FIRST_MEMBER_ID: u64 = 41;

/// Members of the team: name and address.
pub(in crate::sim) const MEMBERS: &[(&str, &str)] = &[
    ("Ada Winter", "ada@harbour.example"),
    ("Jonas Okafor", "jonas@harbour.example"),
    ("Mirela Popescu", "mirela@harbour.example"),
];

/// People who write to them.
pub(in crate::sim) const CONTACTS: &[(&str, &str)] = &[
    ("North Pier Orders", "orders@northpier.example"),
    ("Zoë Brandt", "zoe.brandt@brandt-schiffe.example"),
    ("Luis Ferreira", "luis@ferreira-filhos.example"),
    ("Accounts, Calder & Sons", "accounts@calder.example"),
    ("株式会社みなと 受付", "info@minato.example"),
    ("Priya Nair", "priya.nair@tidewater.example"),
    ("Søren Holm", "soren@holm-maling.example"),
    ("noreply", "noreply@parcel-tracking.example"),
];

/// Labels: id, name, colour.
pub(in crate::sim) const LABELS: &[(u32, &str, &str)] =
    &[(1, "Invoices", "cherry"), (2, "Orders", "mint"), (3, "Photos", "blueberry-dark"), (4, "Später", "gray")];

/// Mailboxes: id, name.
pub(in crate::sim) const MAILBOXES: &[(u32, &str)] = &[(1, "Support"), (2, "Invoices"), (3, "Yard")];

/// What a message may be about: subject, text, the files it brings.
pub(in crate::sim) struct Topic {
    pub(in crate::sim) subject: &'static str,
    pub(in crate::sim) text: &'static str,
    pub(in crate::sim) label: Option<usize>,
    pub(in crate::sim) files: &'static [(Kind, &'static str)],
}

/// The usual mail. `#` in a name becomes the file's number.
pub(in crate::sim) const TOPICS: &[Topic] = &[
    Topic {
        subject: "Invoice for berth and crane, September",
        text: "Please find our invoice attached. Payment within 30 days.",
        label: Some(0),
        files: &[(Kind::Pdf, "Invoice-2026-#.pdf")],
    },
    Topic {
        subject: "Purchase order & delivery note",
        text: "The order as agreed, and what the driver brought.",
        label: Some(1),
        files: &[(Kind::Xlsx, "Order #.xlsx"), (Kind::Pdf, "delivery note #.pdf")],
    },
    Topic {
        subject: "Photos of the damaged rudder",
        text: "Here are the photos you asked for, before and after.",
        label: Some(2),
        files: &[(Kind::Jpeg, "IMG_#.JPG"), (Kind::Jpeg, "IMG_# (1).JPG"), (Kind::Png, "Screenshot #.png")],
    },
    Topic { subject: "Re: opening hours", text: "Thank you, see you on Monday.", label: None, files: &[] },
    Topic {
        subject: "Question about winter storage",
        text: "Is there a place left for a 9 m boat?",
        label: None,
        files: &[],
    },
    Topic {
        subject: "Invitation: yard inspection",
        text: "Please accept the invitation.",
        label: None,
        files: &[(Kind::Ics, "invite.ics")],
    },
    Topic {
        subject: "Contract draft, please check",
        text: "Changes are marked. Kind regards",
        label: Some(3),
        files: &[(Kind::Docx, "Contract draft v#.docx")],
    },
    Topic {
        subject: "Fwd: complaint about paint",
        text: "I forward the original message.",
        label: None,
        files: &[(Kind::Eml, "original message.eml")],
    },
    Topic {
        subject: "Drawings, revision C",
        text: "All drawings in one archive, the plan also on its own.",
        label: Some(1),
        files: &[(Kind::Zip, "drawings-rev-C-#.zip"), (Kind::Svg, "plan-#.svg")],
    },
    Topic {
        subject: "Monthly export",
        text: "The export of last month. Automatic message, do not answer.",
        label: None,
        files: &[(Kind::Csv, "export-#.csv"), (Kind::Text, "notes.txt"), (Kind::Html, "report-#.html")],
    },
];

/// Names that break careless programs.
pub(in crate::sim) const AWKWARD_NAMES: &[&str] = &[
    "../../etc/passwd",
    "..\\..\\windows\\system32\\drivers\\etc\\hosts",
    "/etc/shadow",
    "CON.txt",
    "aux",
    "-rf.pdf",
    "--help",
    ".",
    "..",
    "",
    " ",
    "trailing dot.",
    "trailing space ",
    "line\nbreak.pdf",
    "tab\tand\rreturn.pdf",
    "nul\0byte.pdf",
    "esc\u{1b}[2J\u{1b}]0;title\u{7}.pdf",
    "\"quoted\" 'and' `more`.pdf",
    "semi;colon=equals,comma.csv",
    "<script>alert(1)</script>.html",
    "100%25 sure %2e%2e%2f.pdf",
    "caf\u{e9} composed.pdf",
    "cafe\u{301} decomposed.pdf",
    "\u{202e}fdp.exe",
    "\u{5d7}\u{5e9}\u{5d1}\u{5d5}\u{5e0}\u{5d9}\u{5ea}.pdf",
    "\u{41f}\u{440}\u{438}\u{432}\u{435}\u{442}.docx",
    "\u{65e5}\u{672c}\u{8a9e}\u{306e}\u{8acb}\u{6c42}\u{66f8}.pdf",
    "\u{1f469}\u{200d}\u{1f527} repair \u{1f6e5}\u{fe0f}.jpg",
    "\u{feff}bom.txt",
    "a/b\\c:d*e?f|g.pdf",
    "=cmd|'/c calc'!A1.csv",
    "$(touch pwned).sh",
    ".hidden",
    "no extension",
    "UPPER.PDF",
    "upper.pdf",
];

/// The name that is too long for any file system.
pub(in crate::sim) fn long_name() -> String {
    format!("{}.pdf", "Sehr langer Name für eine Rechnung, ".repeat(12))
}
