"""OpenAI's batches: thousands of requests in a file, asked when there is time for them, and not one lost."""
