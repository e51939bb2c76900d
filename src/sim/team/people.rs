//! Members, mailboxes and labels.

use serde_json::{Value, json};

use super::super::corpus::mail::{FIRST_MEMBER_ID, LABELS, MAILBOXES, MEMBERS};

/// A label of the team.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Label {
    pub(in crate::sim) id: u64,
    pub(in crate::sim) name: String,
    pub(in crate::sim) color: String,
}

impl Label {
    /// The label with its id, as a number.
    pub(in crate::sim) fn to_json(&self) -> Value {
        json!({ "id": self.id, "name": self.name, "color": self.color })
    }
}

/// A member of the team.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Member {
    pub(in crate::sim) id: u64,
    pub(in crate::sim) name: &'static str,
    pub(in crate::sim) email: &'static str,
    pub(in crate::sim) role: &'static str,
    /// Whether the member still belongs to the team.
    pub(in crate::sim) active: bool,
}

impl Member {
    /// The member with the id, as text.
    pub(in crate::sim) fn to_json(&self) -> Value {
        json!({
            "id": self.id.to_string(),
            "name": self.name,
            "email": self.email,
            "role": self.role,
            "active": self.active,
        })
    }
}

/// Who and what conversations refer to.
#[derive(Debug)]
pub(in crate::sim) struct People {
    pub(in crate::sim) members: Vec<Member>,
    pub(in crate::sim) labels: Vec<Label>,
}

impl Default for People {
    fn default() -> Self {
        let mut members: Vec<_> = (FIRST_MEMBER_ID..)
            .zip(MEMBERS)
            .map(|(id, (name, email))| {
                let role = if id == FIRST_MEMBER_ID { "owner" } else { "member" };
                Member { id, name, email, role, active: true }
            })
            .collect();
        members.push(Member {
            id: 47,
            name: "Otto Lind",
            email: "otto@harbour.example",
            role: "member",
            active: false,
        });
        let labels = LABELS.iter().map(|(id, name, color)| Label {
            id: u64::from(*id),
            name: (*name).to_owned(),
            color: (*color).to_owned(),
        });
        Self { members, labels: labels.collect() }
    }
}

impl People {
    /// The first active member for whom that is true.
    pub(in crate::sim) fn active(&self, wanted: impl Fn(&Member) -> bool) -> Option<&Member> {
        self.members.iter().find(|member| member.active && wanted(member))
    }

    /// The active members.
    pub(in crate::sim) fn members_json(&self) -> Value {
        self.members.iter().filter(|member| member.active).map(Member::to_json).collect()
    }

    /// These labels, sorted by name.
    pub(in crate::sim) fn labels_json(&self, ids: &[u64]) -> Value {
        self.sorted_labels().into_iter().filter(|label| ids.contains(&label.id)).map(Label::to_json).collect()
    }

    /// All labels, sorted by name, whatever its case.
    pub(in crate::sim) fn sorted_labels(&self) -> Vec<&Label> {
        let mut labels: Vec<_> = self.labels.iter().collect();
        labels.sort_by_cached_key(|label| label.name.to_lowercase());
        labels
    }

    /// These members, in the order in which they were assigned.
    pub(in crate::sim) fn assignees_json(&self, ids: &[u64]) -> Value {
        let member = |id: &u64| self.members.iter().find(|member| member.id == *id);
        ids.iter().filter_map(member).map(Member::to_json).collect()
    }
}

/// A mailbox by its id.
pub(in crate::sim) fn mailbox_json(id: u64) -> Option<Value> {
    let (id, name) = MAILBOXES.iter().find(|(known, _)| u64::from(*known) == id)?;
    Some(json!({ "id": id, "name": name }))
}
