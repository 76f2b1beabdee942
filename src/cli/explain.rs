//! `walfix explain`.

use walfix::io::printable;
use walfix::report::explain;
use walfix::scan::code::Code;

use super::{Exit, Format, Global, print};

const EXAMPLES: &str = "\
Examples:
  walfix explain                              all codes
  walfix explain zeroed_pages unknown_refs    what these mean, and what to do";

/// Say what the codes of findings mean, what Prometheus does, and what to do.
///
/// Without a code: all codes, one line each. docs/findings.md has the same text.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Explain {
    /// Codes, as `walfix scan` prints them [default: a list of all].
    #[arg(value_name = "CODE")]
    codes: Vec<String>,
}

impl Explain {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<Exit> {
        if global.format == Format::Json {
            eprintln!("walfix: explain prints text only");
            return Ok(Exit::Usage);
        }
        let mut codes: Vec<Code> = Vec::new();
        for name in &self.codes {
            match name.parse() {
                Ok(code) => codes.push(code),
                Err(_) => {
                    eprintln!("{}", unknown(name));
                    return Ok(Exit::Usage);
                }
            }
        }
        print(|out| {
            if codes.is_empty() {
                explain::list(out, global.colour())
            } else {
                explain::write(&codes, out, global.colour())
            }
        })?;
        Ok(Exit::Clean)
    }
}

fn unknown(name: &str) -> String {
    let nearest: Vec<&str> = explain::nearest(name).into_iter().map(Code::name).collect();
    let name = printable(name);
    match nearest.split_last() {
        None => format!("walfix: no finding has the code {name}; `walfix explain` lists all codes"),
        Some((last, [])) => format!("walfix: no finding has the code {name}; did you mean {last}?"),
        Some((last, others)) => {
            format!("walfix: no finding has the code {name}; did you mean {} or {last}?", others.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unknown;

    #[test]
    fn similar_codes_are_named() {
        let said = |name| unknown(name).split_once("; ").map(|(_, hint)| hint.to_owned());
        assert_eq!(said("zeroed_page").as_deref(), Some("did you mean zeroed_pages?"));
        assert_eq!(said("zeroed").as_deref(), Some("did you mean zeroed_pages or zeroed_tail?"));
        assert_eq!(said("gremlins").as_deref(), Some("`walfix explain` lists all codes"));
    }
}
