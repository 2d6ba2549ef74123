"""What each verb does in an opened study, one file a verb."""
