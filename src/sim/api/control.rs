//! The simulator's own control pages: counters, faults, the token, mail that arrives.

use std::fmt::Write as _;
use std::sync::PoisonError;

use serde::Deserialize;
use serde_json::json;

use super::super::faults::Faults;
use super::super::http::{Next, Request, write_answer};
use super::super::state::{State, lock};
use super::super::team::{Delivery, Schedule};
use super::super::webhook::{self, Webhook};
use super::answer::{NO_ENDPOINT, NOT_FOUND, json as send};

/// Answers a request for a control page, which needs no token.
pub(super) fn answer(state: &State, request: &Request<'_>, page: &str, out: &mut Vec<u8>) -> Next {
    match (request.method, page) {
        ("GET", "stats") => {
            let text = serde_json::to_string_pretty(&state.counters.snapshot()).unwrap_or_default();
            send(out, "200 OK", &text)
        }
        ("GET", "exchanges") => {
            let counts: Vec<_> = lock(&state.asked).iter().map(|(blob, asked)| (*blob, asked.exchanges)).collect();
            let counted = counts.into_iter().filter(|(_, count)| *count > 0);
            lines(out, counted.map(|(b, count)| format!("{{\"id\":\"{}\",\"count\":{count}}}", state.ids.mint(b))))
        }
        ("GET", "truth") => lines(out, state.team.truth().iter().filter_map(|known| serde_json::to_string(known).ok())),
        ("PUT", "faults") => match Faults::from_json(request.body) {
            Ok(faults) => {
                *state.faults.write().unwrap_or_else(PoisonError::into_inner) = faults;
                send(out, "200 OK", "{}")
            }
            Err(error) => refused(out, &error.to_string()),
        },
        ("PUT", "token") => match std::str::from_utf8(request.body) {
            Ok(token) if !token.trim().is_empty() => {
                super::set_token(state, token.trim());
                send(out, "200 OK", "{}")
            }
            _ => refused(out, "the body is the new token, as text"),
        },
        ("POST", "mail") => match read::<Delivery>(request.body) {
            Ok(delivery) => match webhook::deliver(state, &delivery) {
                Some(message) => send(out, "201 Created", &message.to_string()),
                None => send(out, "404 Not Found", NOT_FOUND),
            },
            Err(error) => refused(out, &error),
        },
        ("PUT", "schedule") => match read::<Schedule>(request.body) {
            Ok(schedule) => {
                state.hook.set_schedule(Some(schedule));
                send(out, "200 OK", "{}")
            }
            Err(error) => refused(out, &error),
        },
        ("DELETE", "schedule") => {
            state.hook.set_schedule(None);
            send(out, "200 OK", "{}")
        }
        ("PUT", "webhook") => match read::<Webhook>(request.body) {
            Ok(webhook) => {
                state.hook.set_webhook(Some(webhook));
                send(out, "200 OK", "{}")
            }
            Err(error) => refused(out, &error),
        },
        ("DELETE", "webhook") => {
            state.hook.set_webhook(None);
            send(out, "200 OK", "{}")
        }
        ("POST", "reset") => {
            state.reset();
            send(out, "200 OK", "{}")
        }
        _ => send(out, "404 Not Found", NO_ENDPOINT),
    }
}

/// Reads a JSON object; an empty body is an empty object.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn refused(out: &mut Vec<u8>, error: &str) -> Next {
    send(out, "422 Unprocessable Content", &json!({ "errors": [error] }).to_string())
}

/// Sends JSON Lines.
fn lines(out: &mut Vec<u8>, lines: impl Iterator<Item = String>) -> Next {
    let mut text = String::new();
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    write_answer(out, "200 OK", "Content-Type: application/jsonl\r\n", text.as_bytes());
    Next::KeepAlive
}
