//! The SAM CLI, which builds, deploys and takes down: found, checked, and called with the right flags.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{failure::Failure, show::Out};

/// Earlier versions look for a workspace's binaries in the wrong folder.
const SAM_LEAST: (u32, u32) = (1, 170);

/// `sam build` builds for release, whatever `[profile.lambda]` of Cargo.toml says; these variables make the one profile like the
/// other (<https://doc.rust-lang.org/cargo/reference/environment-variables.html>).
const BUILD_LIKE_LAMBDA: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
];

/// A call of `sam`, before it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sam {
    /// Variables that are set for it.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
    pub(crate) arguments: Vec<String>,
    /// The template's directory, where `samconfig.toml` lies; `None` is this one.
    pub(crate) directory: Option<PathBuf>,
}

/// Which stack, and by whose credentials.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) stack: String,
    pub(crate) region: Option<String>,
    pub(crate) profile: Option<String>,
}

impl Sam {
    /// Builds the functions of a template.
    pub(crate) fn build(directory: &Path, template: &str) -> Self {
        Self {
            environment: BUILD_LIKE_LAMBDA.to_vec(),
            arguments: ["build", "--template-file", template].map(str::to_owned).to_vec(),
            directory: Some(directory.to_owned()),
        }
    }

    /// Deploys what was built. `parameters` are pairs of name and value.
    pub(crate) fn deploy(directory: &Path, target: &Target, parameters: &[(String, String)], how: How) -> Self {
        let mut arguments = vec!["deploy".to_owned()];
        if how == How::Guided {
            arguments.push("--guided".to_owned());
        }
        arguments.extend(target.arguments());
        // The template is larger than what CloudFormation takes without a bucket.
        for fixed in [
            "--capabilities",
            "CAPABILITY_IAM",
            "--resolve-s3",
            "--s3-prefix",
            &target.stack,
            "--tags",
            "Application=farebox",
            "--no-fail-on-empty-changeset",
        ] {
            arguments.push(fixed.to_owned());
        }
        match how {
            How::Asking => arguments.push("--confirm-changeset".to_owned()),
            How::Unasked => arguments.push("--no-confirm-changeset".to_owned()),
            How::Guided => {}
        }
        if !parameters.is_empty() {
            arguments.push("--parameter-overrides".to_owned());
            arguments.extend(
                parameters
                    .iter()
                    .map(|(name, value)| format!("{name}={}", quoted(value))),
            );
        }
        Self {
            environment: Vec::new(),
            arguments,
            directory: Some(directory.to_owned()),
        }
    }

    /// Deletes a stack without asking: that was done.
    pub(crate) fn delete(target: &Target) -> Self {
        let mut arguments = vec!["delete".to_owned(), "--no-prompts".to_owned()];
        arguments.extend(target.arguments());
        Self {
            environment: Vec::new(),
            arguments,
            directory: None,
        }
    }

    /// Makes the call and waits for its end. What it prints goes to this command's stdout, or with `--json` to stderr.
    ///
    /// # Errors
    /// If it can't be started, or fails.
    pub(crate) fn run(&self, out: Out) -> Result<(), Failure> {
        let mut command = Command::new("sam");
        command.args(&self.arguments).envs(self.environment.iter().copied());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if out.is_json {
            command.stdout(Stdio::from(std::io::stderr()));
        } else if out.is_unread() {
            // It would end half way, as nobody reads what it prints.
            command.stdout(Stdio::null());
        }
        let status = command
            .status()
            .map_err(|e| Failure::Failed(format!("start sam: {e}")))?;
        match status.success() {
            true => Ok(()),
            false => Err(Failure::Failed(format!("`{self}` failed ({status})"))),
        }
    }
}

/// As it would be typed.
impl fmt::Display for Sam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(f, "{name}={value} ")?;
        }
        f.write_str("sam")?;
        for argument in &self.arguments {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+%".contains(c);
            match !argument.is_empty() && argument.chars().all(is_plain) {
                true => write!(f, " {argument}")?,
                false => write!(f, " '{}'", argument.replace('\'', r"'\''"))?,
            }
        }
        Ok(())
    }
}

/// How a change is agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// SAM shows it and asks.
    Asking,
    /// It is made at once.
    Unasked,
    /// SAM asks for every parameter and remembers it in `samconfig.toml`.
    Guided,
}

impl Target {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--stack-name".to_owned(), self.stack.clone()];
        for (name, value) in [("--region", &self.region), ("--profile", &self.profile)] {
            if let Some(value) = value {
                arguments.extend([name.to_owned(), value.clone()]);
            }
        }
        arguments
    }
}

/// A parameter's value as SAM takes it apart: in quotation marks, unless nothing in it needs them.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+*".contains(c);
    match !value.is_empty() && value.chars().all(is_plain) {
        true => value.to_owned(),
        false => format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\"")),
    }
}

/// Whether `sam` is there and new enough.
///
/// # Errors
/// A sentence that says how to get it.
pub(crate) fn check() -> Result<(), Failure> {
    let hint = "install it: pipx install aws-sam-cli, or \
                https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/install-sam-cli.html";
    let output = Command::new("sam").arg("--version").output();
    let output = output.map_err(|e| Failure::Failed(format!("sam, the SAM CLI, can't be started ({e}); {hint}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match version(&text) {
        Some(version) if version >= SAM_LEAST => Ok(()),
        Some((major, minor)) => Err(Failure::Failed(format!(
            "sam is of version {major}.{minor}; {}.{} or later is needed: earlier ones look for a workspace's binaries in the \
             wrong folder; {hint}",
            SAM_LEAST.0, SAM_LEAST.1
        ))),
        None => Err(Failure::Failed(format!("sam does not say its version; {hint}"))),
    }
}

/// Whether `cargo-lambda` is there, which `sam build` calls.
///
/// # Errors
/// A sentence that says how to get it.
pub(crate) fn check_cargo_lambda(path: &std::ffi::OsStr) -> Result<(), Failure> {
    let name = format!("cargo-lambda{}", std::env::consts::EXE_SUFFIX);
    match std::env::split_paths(path).any(|directory| directory.join(&name).is_file()) {
        true => Ok(()),
        false => Err(Failure::Failed(
            "cargo-lambda, which compiles the functions, is not on the PATH; install it: pipx install cargo-lambda, or \
             https://www.cargo-lambda.info/guide/installation.html"
                .to_owned(),
        )),
    }
}

/// `SAM CLI, version 1.170.0`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split("version ").nth(1)?.trim().split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_two_numbers() {
        assert_eq!(version("SAM CLI, version 1.170.0\n"), Some((1, 170)));
        assert_eq!(version("SAM CLI, version 2.0.1"), Some((2, 0)));
        assert!(Some((1, 99)) < Some(SAM_LEAST) && version("1.170.0").is_none());
    }

    #[test]
    fn values_keep_what_they_hold() {
        assert_eq!(quoted("rk"), "rk");
        assert_eq!(
            quoted("arn:aws:secretsmanager:eu:1:secret:a/b-c"),
            "arn:aws:secretsmanager:eu:1:secret:a/b-c"
        );
        assert_eq!(quoted(""), r#""""#);
        assert_eq!(quoted(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }

    #[test]
    fn a_call_reads_as_it_is_typed() {
        let target = Target {
            stack: "paid".to_owned(),
            region: Some("eu-central-1".to_owned()),
            profile: None,
        };
        assert_eq!(
            Sam::delete(&target).to_string(),
            "sam delete --no-prompts --stack-name paid --region eu-central-1"
        );
        let parameters = [("DocsUrl".to_owned(), "https://a.example/?b&c".to_owned())];
        let call = Sam::deploy(Path::new("."), &target, &parameters, How::Unasked).to_string();
        assert!(
            call.ends_with(r#"--no-confirm-changeset --parameter-overrides 'DocsUrl="https://a.example/?b&c"'"#),
            "{call}"
        );
    }
}
