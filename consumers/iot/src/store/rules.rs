//! The alert rules: those of the configuration, and those put by the HTTP API over them.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{Sqlite, Transaction};

use super::Store;
use crate::alert::Rule;

/// A rule and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleEntry {
    /// The metric it is about.
    pub metric: String,
    /// The thresholds.
    #[serde(flatten)]
    pub rule: Rule,
    /// Whether it stands in the configuration; otherwise the HTTP API put it.
    pub from_config: bool,
}

type Row = (String, Option<f64>, Option<f64>, f64, bool);

fn entry((metric, above, below, hysteresis, from_config): Row) -> RuleEntry {
    RuleEntry {
        metric,
        rule: Rule {
            above,
            below,
            hysteresis,
        },
        from_config,
    }
}

/// Every rule, as the batch being applied has to know them. `rules_max` of the configuration bounds them.
pub(super) async fn rules_by_metric(
    tx: &mut Transaction<'_, Sqlite>,
) -> sqlx::Result<HashMap<String, Rule>> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT metric, above, below, hysteresis, from_config FROM rules")
            .fetch_all(&mut **tx)
            .await?;
    Ok(rows
        .into_iter()
        .map(entry)
        .map(|entry| (entry.metric, entry.rule))
        .collect())
}

impl Store {
    /// All rules by the name of their metric.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn rules(&self) -> sqlx::Result<Vec<RuleEntry>> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT metric, above, below, hysteresis, from_config FROM rules ORDER BY metric",
        )
        .fetch_all(self.0.reader())
        .await?;
        Ok(rows.into_iter().map(entry).collect())
    }

    /// Makes the rules of the configuration those that the store has, except where the HTTP API put another.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn configure_rules<'a>(
        &self,
        rules: impl Iterator<Item = (&'a str, &'a Rule)>,
    ) -> sqlx::Result<()> {
        let mut tx = self.0.write().await?;
        sqlx::query("DELETE FROM rules WHERE from_config")
            .execute(&mut *tx)
            .await?;
        for (metric, rule) in rules {
            sqlx::query(
                "INSERT INTO rules (metric, above, below, hysteresis, from_config) VALUES (?, ?, ?, ?, 1)
                 ON CONFLICT (metric) DO NOTHING",
            )
            .bind(metric)
            .bind(rule.above)
            .bind(rule.below)
            .bind(rule.hysteresis)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await
    }

    /// Puts the rule of a metric. `false`: there are `rules_max` others already.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn put_rule(&self, metric: &str, rule: Rule, rules_max: u32) -> sqlx::Result<bool> {
        let mut tx = self.0.write().await?;
        let others: i64 = sqlx::query_scalar("SELECT count(*) FROM rules WHERE metric <> ?")
            .bind(metric)
            .fetch_one(&mut *tx)
            .await?;
        if others >= i64::from(rules_max) {
            return Ok(false);
        }
        sqlx::query(
            "INSERT OR REPLACE INTO rules (metric, above, below, hysteresis, from_config) VALUES (?, ?, ?, ?, 0)",
        )
        .bind(metric)
        .bind(rule.above)
        .bind(rule.below)
        .bind(rule.hysteresis)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Takes back what the HTTP API put for a metric; the rule of the configuration, if there is one, holds again.
    /// `false`: there was no rule.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn delete_rule(&self, metric: &str, configured: Option<&Rule>) -> sqlx::Result<bool> {
        let mut tx = self.0.write().await?;
        let deleted = sqlx::query("DELETE FROM rules WHERE metric = ?")
            .bind(metric)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if let Some(rule) = configured {
            sqlx::query("INSERT INTO rules (metric, above, below, hysteresis, from_config) VALUES (?, ?, ?, ?, 1)")
                .bind(metric)
                .bind(rule.above)
                .bind(rule.below)
                .bind(rule.hysteresis)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(deleted > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::store;
    use super::*;

    fn above(threshold: f64) -> Rule {
        Rule {
            above: Some(threshold),
            ..Rule::default()
        }
    }

    async fn shown(store: &Store) -> Vec<(String, Option<f64>, bool)> {
        let rules = store.rules().await.expect("reads");
        rules
            .into_iter()
            .map(|entry| (entry.metric, entry.rule.above, entry.from_config))
            .collect()
    }

    #[tokio::test]
    async fn a_rule_that_was_put_stays_over_the_configured_one_until_it_is_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir).await;
        let configured = above(30.0);
        store
            .configure_rules([("t", &configured), ("u", &configured)].into_iter())
            .await
            .expect("configures");
        assert!(store.put_rule("t", above(50.0), 10).await.expect("puts"));
        store
            .configure_rules([("t", &configured)].into_iter())
            .await
            .expect("configures again");
        assert_eq!(shown(&store).await, [("t".to_owned(), Some(50.0), false)]);
        assert!(
            store
                .delete_rule("t", Some(&configured))
                .await
                .expect("deletes")
        );
        assert_eq!(shown(&store).await, [("t".to_owned(), Some(30.0), true)]);
        assert!(
            !store
                .delete_rule("nothing", None)
                .await
                .expect("deletes nothing")
        );
    }

    #[tokio::test]
    async fn rules_are_bounded_and_replacing_one_is_always_possible() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir).await;
        assert!(store.put_rule("a", above(1.0), 2).await.expect("puts"));
        assert!(store.put_rule("b", above(1.0), 2).await.expect("puts"));
        assert!(!store.put_rule("c", above(1.0), 2).await.expect("refuses"));
        assert!(store.put_rule("b", above(2.0), 2).await.expect("replaces"));
    }
}
