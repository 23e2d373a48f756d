import java.util.concurrent.CountDownLatch;
import java.util.concurrent.locks.LockSupport;

/**
 * Threads that wait in each way that the virtual machine has a probe for.
 *
 *   javac Workers.java
 *   sudo lifetrace run -o java.rec -- java -XX:+DTraceMonitorProbes Workers
 *   lifetrace report java.rec
 */
public class Workers {
    private static final Object LOCK = new Object();
    private static volatile boolean done;

    public static void main(String[] args) throws InterruptedException {
        CountDownLatch ready = new CountDownLatch(2);
        Thread parker = start("parker", () -> {
            ready.countDown();
            while (!done) {
                LockSupport.park();
            }
        });
        Thread sleeper = start("sleeper", () -> sleep(50));
        Thread contender;
        synchronized (LOCK) {
            contender = start("contender", () -> {
                synchronized (LOCK) {
                    sleep(1);
                }
            });
            while (contender.getState() != Thread.State.BLOCKED) {
                sleep(1);
            }
            sleep(20);
        }
        Thread waiter = start("waiter", () -> {
            synchronized (LOCK) {
                ready.countDown();
                while (!done) {
                    waitFor(LOCK);
                }
            }
        });
        ready.await();
        while (parker.getState() != Thread.State.WAITING || waiter.getState() != Thread.State.WAITING) {
            sleep(1);
        }
        sleep(20);
        done = true;
        LockSupport.unpark(parker);
        synchronized (LOCK) {
            LOCK.notifyAll();
        }
        for (Thread thread : new Thread[] {parker, sleeper, contender, waiter}) {
            thread.join();
            System.out.println(thread.getId() + " " + thread.getName());
        }
    }

    private static Thread start(String name, Runnable body) {
        Thread thread = new Thread(body, name);
        thread.start();
        return thread;
    }

    private static void sleep(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException error) {
            throw new AssertionError(error);
        }
    }

    private static void waitFor(Object lock) {
        try {
            lock.wait();
        } catch (InterruptedException error) {
            throw new AssertionError(error);
        }
    }
}
