//! The API server: the token, the limits, and what is asked for; the simulator's own control pages under `/_sim/`.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use percent_encoding::percent_decode_str;

use super::faults::Fault;
use super::http::{Next, Request};
use super::random::mix2;
use super::state::{Call, State, lock};
use super::webhook;

mod answer;
mod assignments;
mod contacts;
mod control;
mod drafts;
mod exchange;
mod fields;
mod labels;
mod lists;
mod reading;
mod routes;

pub(super) use answer::LOGIN_PAGE;
use answer::{
    BROKEN, Done, FORBIDDEN, INVALID_TOKEN, NO_ENDPOINT, Outcome, Refusal, dated, html, json, outcome, too_many,
};
use fields::Fields;
use routes::Route;

const MEMBERS_FAULTS: [Fault; 6] =
    [Fault::Members401, Fault::Members403, Fault::Call401, Fault::Call429, Fault::Call500, Fault::CallHtml];
const CALL_FAULTS: [Fault; 4] = [Fault::Call401, Fault::Call429, Fault::Call500, Fault::CallHtml];

/// Answers one request.
pub(super) fn answer(state: &State, request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    if let Some(page) = path.strip_prefix("/_sim/") {
        return control::answer(state, request, page, out);
    }
    state.counters.api_requests.fetch_add(1, Relaxed);
    let now = state.clock.now();
    let taken = lock(&state.limits).take(now.as_millisecond());
    if let Err(seconds) = taken {
        state.counters.rate_limited.fetch_add(1, Relaxed);
        return too_many(out, &seconds.to_string());
    }
    let authorized = {
        let expected = state.authorization.read().unwrap_or_else(PoisonError::into_inner);
        request.header("authorization").is_some_and(|value| value == *expected)
    };
    if !authorized {
        state.counters.unauthorized.fetch_add(1, Relaxed);
        return dated(out, now, "401 Unauthorized", INVALID_TOKEN);
    }
    webhook::tick(state);
    let parts: Vec<_> = path.strip_prefix("/api/").unwrap_or_default().split('/').collect();
    match (request.method, parts.as_slice()) {
        ("GET", ["attachments", id]) => exchange::exchange(state, id, now, out),
        ("GET", ["conversations"]) => lists::conversations(state, query, out),
        ("GET", ["conversations", slug, "messages"]) => lists::messages(state, &decoded(slug), query, out),
        ("GET", ["members"]) => members(state, out),
        (method, parts) => {
            let parts: Vec<_> = parts.iter().map(|part| decoded(part)).collect();
            let parts: Vec<_> = parts.iter().map(String::as_str).collect();
            match routes::find(method, &parts) {
                Some(route) => call(state, request, route, &parts, out),
                None => {
                    state.counters.other.fetch_add(1, Relaxed);
                    json(out, "404 Not Found", NO_ENDPOINT)
                }
            }
        }
    }
}

/// A part of a path.
fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn members(state: &State, out: &mut Vec<u8>) -> Next {
    state.counters.members.fetch_add(1, Relaxed);
    let asked = state.count_call(Call::Members, 0);
    if let Some(fault) = state.pick(&MEMBERS_FAULTS, 0, asked) {
        return go_wrong(state, fault, out);
    }
    let members = state.team.changes().people.members_json().to_string();
    dated(out, state.clock.now(), "200 OK", &members)
}

/// Answers a call that is neither an exchange nor a list.
fn call(state: &State, request: &Request<'_>, route: Route<'_>, parts: &[&str], out: &mut Vec<u8>) -> Next {
    let counters = &state.counters;
    let counter = if request.method == "GET" { &counters.reads } else { &counters.writes };
    counter.fetch_add(1, Relaxed);
    let method = std::iter::once(&request.method);
    let subject = method.chain(parts).flat_map(|part| part.bytes()).fold(0, |sum, byte| mix2(sum, u64::from(byte)));
    let asked = state.count_call(Call::Other, subject);
    if let Some(fault) = state.pick(&CALL_FAULTS, subject, asked) {
        return go_wrong(state, fault, out);
    }
    outcome(out, state.clock.now(), done(state, request, route))
}

/// Does what a call asks for.
fn done(state: &State, request: &Request<'_>, route: Route<'_>) -> Outcome {
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let (fields, now) = (Fields::read(request)?, state.clock.now());
    match route {
        Route::Labels => Ok(labels::list(state)),
        Route::CreateLabel => labels::create(state, &fields),
        Route::Mailboxes => Ok(reading::mailboxes()),
        Route::MailboxMembers(id) => reading::mailbox_members(state, id),
        Route::Conversation(slug) => reading::conversation(state, slug),
        Route::Message(id) => reading::message(state, id),
        Route::AddLabel(slug) => labels::add(state, slug, &fields, now),
        Route::RemoveLabel(slug, id) => labels::remove(state, slug, id, now),
        Route::Assign(slug) => assignments::assign(state, slug, &fields, now),
        Route::Unassign(slug, id) => assignments::unassign(state, slug, id, now),
        Route::DraftReply(slug) => drafts::create(state, slug, &fields, now),
        Route::Comment(slug) => drafts::comment(state, slug, &fields, now),
        Route::FindContact => contacts::find(state, query),
        Route::SaveContact => contacts::save(state, &fields),
    }
}

/// Answers with a fault.
fn go_wrong(state: &State, fault: Fault, out: &mut Vec<u8>) -> Next {
    let now = state.clock.now();
    match fault {
        Fault::Call401 | Fault::Members401 => dated(out, now, "401 Unauthorized", INVALID_TOKEN),
        Fault::Members403 => dated(out, now, "403 Forbidden", FORBIDDEN),
        Fault::Call429 | Fault::Page429 | Fault::Messages429 => too_many(out, &state.measures().0.to_string()),
        Fault::CallHtml | Fault::PageHtml | Fault::MessagesHtml => html(out),
        Fault::Page422 | Fault::Messages422 => outcome(out, state.clock.now(), Err(lists::invalid_cursor())),
        Fault::Messages404 => outcome(out, state.clock.now(), Err(Refusal::NotFound)),
        Fault::PageReset => Next::Reset,
        _ => json(out, "500 Internal Server Error", BROKEN),
    }
}

/// Makes `token` the only one that is accepted.
pub(super) fn set_token(state: &State, token: &str) {
    *state.authorization.write().unwrap_or_else(PoisonError::into_inner) = format!("Bearer {token}");
}
