-- Fields of a message that this version does not know, as they were written: a JSON object.
ALTER TABLE messages ADD COLUMN extra TEXT;

-- A message that its sender sends again has the identifier of the first. Not unique: older versions kept both.
CREATE INDEX messages_by_id ON messages (room, sender, id) WHERE id IS NOT NULL;
