//! Tests of the settings of webhooks and listeners.
