"""The stream jobs: Flink SQL over one source and one deduplication. README.md says what each job gives."""
