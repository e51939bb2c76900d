//! Which calls there are, beside exchanges, lists and members.

/// A call, with what its path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Labels,
    CreateLabel,
    Mailboxes,
    MailboxMembers(&'a str),
    Conversation(&'a str),
    Message(&'a str),
    AddLabel(&'a str),
    RemoveLabel(&'a str, &'a str),
    Assign(&'a str),
    Unassign(&'a str, &'a str),
    DraftReply(&'a str),
    Comment(&'a str),
    FindContact,
    SaveContact,
}

/// The call that a method and the parts of a path stand for.
pub(super) fn find<'a>(method: &str, parts: &[&'a str]) -> Option<Route<'a>> {
    let route = match (method, parts) {
        ("GET", ["labels"]) => Route::Labels,
        ("POST", ["labels"]) => Route::CreateLabel,
        ("GET", ["mailboxes"]) => Route::Mailboxes,
        ("GET", ["mailboxes", id, "members"]) => Route::MailboxMembers(id),
        ("GET", ["conversations", slug]) => Route::Conversation(slug),
        ("GET", ["messages", id]) => Route::Message(id),
        ("POST", ["conversations", slug, "labels"]) => Route::AddLabel(slug),
        ("DELETE", ["conversations", slug, "labels", id]) => Route::RemoveLabel(slug, id),
        ("POST", ["conversations", slug, "assignments"]) => Route::Assign(slug),
        ("DELETE", ["conversations", slug, "assignments", id]) => Route::Unassign(slug, id),
        ("POST", ["conversations", slug, "draft_reply"]) => Route::DraftReply(slug),
        ("POST", ["conversations", slug, "comments"]) => Route::Comment(slug),
        ("GET", ["contacts", "for_email"]) => Route::FindContact,
        ("POST", ["contacts"]) => Route::SaveContact,
        _ => return None,
    };
    Some(route)
}
