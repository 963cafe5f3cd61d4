//! How values stand in the database: a number as REAL, a boolean as INTEGER, a text as TEXT, in a column that takes any of them
//! as it is.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Sqlite, Type, TypeInfo as _, ValueRef as _};

use crate::telemetry::Value;

impl Type<Sqlite> for Value {
    fn type_info() -> SqliteTypeInfo {
        <f64 as Type<Sqlite>>::type_info()
    }

    fn compatible(found: &SqliteTypeInfo) -> bool {
        matches!(found.name(), "REAL" | "INTEGER" | "TEXT")
    }
}

impl Encode<'_, Sqlite> for Value {
    fn encode_by_ref(&self, into: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        match self {
            Self::Number(number) => Encode::<Sqlite>::encode_by_ref(number, into),
            Self::Boolean(value) => Encode::<Sqlite>::encode_by_ref(&i64::from(*value), into),
            Self::Text(text) => Encode::<Sqlite>::encode_by_ref(text, into),
        }
    }
}

impl<'r> Decode<'r, Sqlite> for Value {
    fn decode(found: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        let kind = found.type_info().name().to_owned();
        match kind.as_str() {
            "INTEGER" => Ok(Self::Boolean(<i64 as Decode<Sqlite>>::decode(found)? != 0)),
            "TEXT" => Ok(Self::Text(<String as Decode<Sqlite>>::decode(found)?)),
            _ => Ok(Self::Number(<f64 as Decode<Sqlite>>::decode(found)?)),
        }
    }
}
