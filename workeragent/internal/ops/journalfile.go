package ops

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"
)

const (
	// slack is how many bytes a log may grow besides doubling before it is
	// rewritten.
	slack = 1 << 20
	// frameSize is about how many bytes of records share a frame in a rewritten
	// log; damage loses whole frames.
	frameSize = 64 << 10
	// probeEvery is how often a disk that failed is tried again.
	probeEvery = time.Second
	// maxDamaged is how many damaged files are kept.
	maxDamaged = 4
)

// journalFile is the file. One goroutine at a time uses it.
type journalFile struct {
	disk disk
	path string
	log  *slog.Logger

	file   file // nil: it failed, or was never written
	mark   mark
	size   int64 // of the file
	limit  int64 // the size at which it is rewritten
	failed error // why file is nil
	tried  time.Time
	aside  bool // what is there is damaged, and is to be kept beside
}

// save writes records to stable storage: a frame, or the whole file anew from all
// that is known.
func (j *journalFile) save(records []byte, all func() []record) error {
	if j.file == nil && j.failed != nil && time.Since(j.tried) < probeEvery {
		return j.failed
	}
	if j.file == nil || j.size+int64(len(records)) > j.limit {
		err := j.rewrite(all())
		if err == nil || j.file == nil {
			return err
		}
		// The old file still does; perhaps there is room for a line but not for
		// a second copy.
		j.limit = j.size + slack
		j.log.Warn("cannot compact the memory of operations", "file", j.path, "error", err)
	}
	return j.append(records)
}

// append writes a frame behind the others. Once it is on stable storage a mark is
// put behind it, an empty frame, which shows to who reads it that what stands
// before was there.
func (j *journalFile) append(records []byte) error {
	err := j.write(appendFrame(nil, j.mark, records))
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		// What the file holds now nobody knows, and a second fsync would not
		// tell: the kernel may have dropped what the first could not write.
		j.fail(err)
		return err
	}
	if err := j.write(appendFrame(nil, j.mark, nil)); err != nil {
		j.fail(err)
	}
	return nil
}

func (j *journalFile) write(b []byte) error {
	n, err := j.file.Write(b)
	j.size += int64(n)
	return err
}

func (j *journalFile) fail(err error) {
	if j.failed == nil {
		j.log.Error("operations cannot be written down; no new ones are run", "file", j.path, "error", err)
	}
	if j.file != nil {
		err = errors.Join(err, j.file.Close())
		j.file = nil
	}
	j.failed, j.tried = err, time.Now()
}

// rewrite puts a new file in place of the old one. With an error the old one is
// as it was, or j.file is nil.
func (j *journalFile) rewrite(records []record) (err error) {
	next := journalFile{disk: j.disk, path: j.path + ".new", log: j.log, mark: newMark()}
	defer func() {
		if err != nil && j.file == nil {
			j.fail(err)
		}
	}()
	if next.file, err = j.disk.create(next.path); err != nil {
		return err
	}
	if err = next.fill(records); err != nil {
		return errors.Join(err, next.file.Close(), j.disk.remove(next.path))
	}
	j.keepDamaged()
	if err = j.disk.rename(next.path, j.path); err != nil {
		return errors.Join(err, next.file.Close(), j.disk.remove(next.path))
	}
	if j.file != nil {
		_ = j.file.Close() // nothing of it is needed any more
	}
	j.file, j.mark, j.size, j.limit = next.file, next.mark, next.size, 2*next.size+slack
	// Only now it is certain which file is found after a power cut.
	if err = j.disk.syncDir(j.path); err != nil {
		err = errors.Join(err, j.file.Close())
		j.file = nil
		return err
	}
	if j.failed != nil {
		j.log.Info("operations can be written down again", "file", j.path)
		j.failed = nil
	}
	return nil
}

// fill writes all of a new file to stable storage.
func (j *journalFile) fill(records []record) error {
	buf, content := appendHeader(nil, j.mark), []byte(nil)
	for i, r := range records {
		if content = r.append(content); len(content) < frameSize && i < len(records)-1 {
			continue
		}
		if err := j.write(appendFrame(buf, j.mark, content)); err != nil {
			return err
		}
		buf, content = buf[:0], content[:0]
	}
	if err := j.write(appendFrame(buf, j.mark, nil)); err != nil {
		return err
	}
	return j.file.Sync()
}

// keepDamaged gives the damaged file a second name, so that it outlives being
// replaced. Where that cannot be, it does not: what can be read of it is in memory.
func (j *journalFile) keepDamaged() {
	name := j.path + ".damaged"
	for n := 2; j.aside; n++ {
		err := j.disk.link(j.path, name)
		if err == nil {
			j.aside = false
		} else if !errors.Is(err, fs.ErrExist) || n > maxDamaged {
			j.log.Warn("the damaged memory of operations is not kept", "file", j.path, "error", err)
			return
		}
		name = fmt.Sprintf("%s.damaged.%d", j.path, n)
	}
}

func (j *journalFile) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
