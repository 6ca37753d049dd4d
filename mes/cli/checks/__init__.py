"""What `mes check` looks at: each module yields its findings."""
