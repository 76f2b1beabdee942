//! A plan for an operator, and for machines.

use std::io::{self, Write};

use super::page::Page;
use super::text::Style;
use crate::repair::Plan;

/// Writes the plan as one JSON document on one line.
///
/// # Errors
/// Those of `out`.
pub fn write_json(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, plan)?;
    out.write_all(b"\n")
}

/// Writes the plan as text.
///
/// # Errors
/// Those of `out`.
pub fn write(plan: &Plan, out: &mut dyn Write, style: Style) -> io::Result<()> {
    let mut page = Page { out, colour: style.colour };
    for step in &plan.steps {
        page.line(&format!("{:?}", step.change))?;
        for mends in &step.mends {
            page.line(&format!("  {} {:?} {:?}: {}", mends.code, mends.offset, mends.end, mends.how))?;
        }
    }
    for left in &plan.left {
        page.line(&format!("left: {} {}: {}", left.path, left.code, left.reason))?;
    }
    Ok(())
}
