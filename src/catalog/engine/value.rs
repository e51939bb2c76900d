//! Parameters and columns. Every number is 64 bits wide, and what is true is 1. PostgreSQL's text can hold no NUL, which
//! SQLite's can and names from outside may have: there it is written as two characters of a private plane.

use std::borrow::Cow;

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments as _, Row as _, TypeInfo as _, ValueRef as _};

/// Begins what stands for a NUL, or for itself.
const ESCAPE: char = '\u{f0000}';

/// A parameter.
#[derive(Debug, Clone)]
pub(in crate::catalog) enum Value<'q> {
    Integer(Option<i64>),
    Text(Option<Cow<'q, str>>),
    Bytes(Option<Cow<'q, [u8]>>),
}

impl Value<'_> {
    pub(super) fn add_to_sqlite(self, arguments: &mut SqliteArguments) -> Result<(), BoxDynError> {
        match self {
            Self::Integer(value) => arguments.add(value),
            Self::Text(value) => arguments.add(value.map(Cow::into_owned)),
            Self::Bytes(value) => arguments.add(value.map(Cow::into_owned)),
        }
    }

    pub(super) fn add_to_postgres(self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        match self {
            Self::Integer(value) => arguments.add(value),
            Self::Text(value) => arguments.add(value.as_deref().map(escaped)),
            Self::Bytes(value) => arguments.add(value.as_deref()),
        }
    }
}

fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(ESCAPE, "\u{f0000}1").replace('\0', "\u{f0000}0"))
}

fn unescaped(text: String) -> String {
    if !text.contains(ESCAPE) {
        return text;
    }
    text.replace("\u{f0000}0", "\0").replace("\u{f0000}1", "\u{f0000}")
}

macro_rules! values {
    ($($kind:ident: $($type:ty => |$value:ident| $made:expr),+;)+) => {$($(
        impl<'q> From<$type> for Value<'q> {
            fn from($value: $type) -> Self {
                Self::$kind(Some($made))
            }
        }

        impl<'q> From<Option<$type>> for Value<'q> {
            fn from(value: Option<$type>) -> Self {
                Self::$kind(value.map(|$value| $made))
            }
        }
    )+)+};
}

values! {
    Integer: i64 => |value| value, u32 => |value| i64::from(value), &'q i64 => |value| *value, bool => |value| i64::from(value),
        &'q bool => |value| i64::from(*value);
    Text: &'q str => |value| Cow::Borrowed(value), String => |value| Cow::Owned(value),
        &'q String => |value| Cow::Borrowed(value.as_str());
    Bytes: &'q [u8] => |value| Cow::Borrowed(value), Vec<u8> => |value| Cow::Owned(value),
        &'q Vec<u8> => |value| Cow::Borrowed(value.as_slice());
}

impl<'q> From<&'q Option<String>> for Value<'q> {
    fn from(value: &'q Option<String>) -> Self {
        Self::Text(value.as_deref().map(Cow::Borrowed))
    }
}

/// A type that columns have.
pub(in crate::catalog) trait Column<'r>: Sized {
    fn of_sqlite(row: &'r SqliteRow, column: usize) -> sqlx::Result<Self>;
    fn of_postgres(row: &'r PgRow, column: usize) -> sqlx::Result<Self>;
}

macro_rules! columns {
    ($($type:ty),+) => {$(
        impl<'r> Column<'r> for $type {
            fn of_sqlite(row: &'r SqliteRow, column: usize) -> sqlx::Result<Self> {
                row.try_get(column)
            }

            fn of_postgres(row: &'r PgRow, column: usize) -> sqlx::Result<Self> {
                row.try_get(column)
            }
        }
    )+};
}

columns!(&'r str, Option<&'r str>, &'r [u8], Option<&'r [u8]>, Vec<u8>, Option<Vec<u8>>);

impl<'r> Column<'r> for Option<String> {
    fn of_sqlite(row: &'r SqliteRow, column: usize) -> sqlx::Result<Self> {
        row.try_get(column)
    }

    fn of_postgres(row: &'r PgRow, column: usize) -> sqlx::Result<Self> {
        Ok(row.try_get::<Self, _>(column)?.map(unescaped))
    }
}

impl<'r> Column<'r> for Option<i64> {
    fn of_sqlite(row: &'r SqliteRow, column: usize) -> sqlx::Result<Self> {
        row.try_get(column)
    }

    /// PostgreSQL's expressions have narrower types where they can.
    fn of_postgres(row: &'r PgRow, column: usize) -> sqlx::Result<Self> {
        let kind = row.try_get_raw(column)?.type_info().name().to_owned();
        Ok(match kind.as_str() {
            "BOOL" => row.try_get::<Option<bool>, _>(column)?.map(i64::from),
            "INT4" => row.try_get::<Option<i32>, _>(column)?.map(i64::from),
            _ => row.try_get(column)?,
        })
    }
}

impl<'r> Column<'r> for Option<bool> {
    fn of_sqlite(row: &'r SqliteRow, column: usize) -> sqlx::Result<Self> {
        row.try_get(column)
    }

    fn of_postgres(row: &'r PgRow, column: usize) -> sqlx::Result<Self> {
        Ok(Option::<i64>::of_postgres(row, column)?.map(|value| value != 0))
    }
}

macro_rules! not_null {
    ($($type:ty),+) => {$(
        impl<'r> Column<'r> for $type {
            fn of_sqlite(row: &'r SqliteRow, column: usize) -> sqlx::Result<Self> {
                row.try_get(column)
            }

            fn of_postgres(row: &'r PgRow, column: usize) -> sqlx::Result<Self> {
                Option::<$type>::of_postgres(row, column)?.ok_or_else(|| sqlx::Error::ColumnDecode {
                    index: column.to_string(),
                    source: "unexpected null".into(),
                })
            }
        }
    )+};
}

not_null!(i64, bool, String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_nul_comes_back_as_it_was() {
        for text in ["", "a", "a\0b", "\0", "\u{f0000}", "\u{f0000}0", "\u{f0000}1\0", "\0\u{f0000}\u{f0000}0"] {
            let kept = escaped(text);
            assert!(!kept.contains('\0'));
            assert_eq!(unescaped(kept.into_owned()), text);
        }
    }
}
